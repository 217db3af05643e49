package page

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sockns/sockns/graph"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/model/modeltest"
)

func shop(t *testing.T) *model.Policy {
	t.Helper()
	text, err := os.ReadFile("testdata/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, diags := model.Parse([]model.File{{Name: "shop.yaml", Data: text}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return p
}

// fleet is a policy of 500 namespaces: 45 applications of 11 services each, in
// three device namespaces, and what all of them use.
func fleet() string {
	var b strings.Builder
	b.WriteString("apiVersion: sockns/v1\ndeviceNamespaces:\n  blue: {netns: blue}\n  ci: {netns: ci}\n" +
		"groups:\n  corp: [10.0.0.0/8]\n  partners: [192.0.2.0/24]\nsocketNamespaces:\n")
	applications := strings.Fields(`billing shop search auth media mail crm stock price cart order fraud report chat login maps
		video photo geo forum wiki build deploy ledger audit quota score route track label paper ocean river stone cloud amber
		cedar maple birch raven heron swift otter lynx wren`)
	device := func(i int) string { return []string{"host", "host", "host", "blue", "ci"}[i*5/len(applications)] }
	uses := func(i int) []int { // applications of the same device namespace that application i calls
		var list []int
		for _, step := range []int{3, 7} {
			if j := (i + step) % len(applications); device(j) == device(i) {
				list = append(list, j)
			}
		}
		return list
	}
	callers := make(map[int][]string)
	for i, a := range applications {
		for _, j := range uses(i) {
			callers[j] = append(callers[j], a+"-api")
		}
	}
	scraped := []string{}
	for i, a := range applications {
		common := "" // what each service may reach besides
		if device(i) == "host" {
			common = "      - {protocol: udp, ports: 53, to: dns}\n"
			scraped = append(scraped, a+"-api", a+"-db")
		}
		calls := ""
		for _, j := range uses(i) {
			calls += fmt.Sprintf("      - {protocol: tcp, ports: 9000, to: %s-api}\n", applications[j])
		}
		scrape := ""
		if device(i) == "host" {
			scrape = "      - {protocol: tcp, ports: 9100, from: monitor}\n"
		}
		sync := ""
		if i%9 == 4 { // a mistake: web does not accept it
			sync = fmt.Sprintf("      - {protocol: tcp, ports: 8443, to: %s-web}\n", a)
		}
		to := func(port int, role string) string {
			return fmt.Sprintf("      - {protocol: tcp, ports: %d, to: %s-%s}\n", port, a, role)
		}
		from := func(port int, roles ...string) string {
			for k := range roles {
				roles[k] = a + "-" + roles[k]
			}
			return fmt.Sprintf("      - {protocol: tcp, ports: %d, from: [%s]}\n", port, strings.Join(roles, ", "))
		}
		for _, s := range []struct{ role, connect, accept string }{
			{"web", to(9000, "api") + to(6379, "cache"), "      - {protocol: tcp, ports: [80, 443], from: corp}\n"},
			{"api", to(5432, "db") + to(6379, "cache") + to(5672, "queue") + calls,
				fmt.Sprintf("      - {protocol: tcp, ports: 9000, from: [%s]}\n", strings.Join(append([]string{a + "-web"}, callers[i]...), ", ")) + scrape},
			{"worker", to(5672, "queue") + to(5432, "db") + to(3128, "proxy"), ""},
			{"db", "", from(5432, "api", "worker", "batch", "sync", "jobs") + scrape},
			{"cache", "", from(6379, "api", "web")},
			{"queue", "", from(5672, "api", "worker")},
			{"batch", to(5432, "db"), ""},
			{"proxy", "      - {protocol: tcp, ports: 443, to: partners}\n", from(3128, "worker")},
			{"sync", to(5432, "db") + sync, ""},
			{"auth", "", from(7000, "api")},
			{"jobs", to(5432, "db"), ""},
		} {
			fmt.Fprintf(&b, "  %s-%s:\n    members: [{cgroup: /%s.slice/%s}]\n    deviceNamespace: %s\n", a, s.role, a, s.role, device(i))
			if c := s.connect + common; c != "" {
				b.WriteString("    connect:\n" + c)
			}
			if s.accept != "" {
				b.WriteString("    accept:\n" + s.accept)
			}
		}
	}
	fmt.Fprintf(&b, `  dns:
    members: [{unit: dnsmasq.service}]
    connect: [{protocol: udp, ports: 53, to: any}]
    accept: [{protocol: udp, ports: 53, from: any}]
  monitor:
    members: [{unit: prometheus.service}]
    connect: [{protocol: tcp, ports: 9100, to: [%s]}]
    accept: [{protocol: tcp, ports: 9090, from: corp}]
  user:
    each: /user.slice/user-*.slice
    connect: [{to: any}]
  backup:
    members: [{unit: backup.service}]
    mode: audit
    connect: [{protocol: tcp, ports: 5432, to: any}]
  ssh:
    members: [{unit: ssh.service}]
    accept: [{protocol: tcp, ports: 22, from: corp}]
`, strings.Join(scraped, ", "))
	return b.String()
}

func TestFleetHas500(t *testing.T) {
	n := 0
	for _, node := range graph.Build(modeltest.Parse(t, fleet())).Nodes {
		if node.Kind == graph.Namespace || node.Kind == graph.Template {
			n++
		}
	}
	if n != 500 {
		t.Errorf("%d namespaces", n)
	}
}

func TestSelfContained(t *testing.T) {
	g := liveShop(t)
	g.Rules[0].File = "</script><script src=//evil.test>.yaml"
	var b bytes.Buffer
	if err := Write(&b, g); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, bad := range []string{"evil.test>", "<script src", "@import", "url(http", "https://"} {
		if strings.Contains(text, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if n := strings.Count(text, "<script"); n != 2 {
		t.Errorf("%d script elements, want 2", n)
	}
}

// TestNothingOverlaps draws policies and looks at where their nodes stand.
func TestNothingOverlaps(t *testing.T) {
	policies := modeltest.YAML(modeltest.Usual)
	rapid.Check(t, func(t *rapid.T) {
		g := graph.Build(modeltest.Parse(t, policies.Draw(t, "policy")))
		for _, l := range []Layout{layers(g), circle(g)} {
			checkLayout(t, g, &l)
		}
	})
}

func TestFleetLayout(t *testing.T) {
	g := graph.Build(modeltest.Parse(t, fleet()))
	l := layOut(g)
	if l.Style != "circle" {
		t.Errorf("style %s", l.Style)
	}
	checkLayout(t, g, &l)
}

func checkLayout(t interface{ Fatalf(string, ...any) }, g *graph.Graph, l *Layout) {
	drawn := make(map[int]bool)
	for i, a := range l.Spots {
		drawn[a.Node] = true
		if a.X < float64(l.Size[0]) || a.X > float64(l.Size[0]+l.Size[2]) || a.Y < float64(l.Size[1]) || a.Y > float64(l.Size[1]+l.Size[3]) {
			t.Fatalf("%s of %s is outside of the picture", l.Style, g.Nodes[a.Node].ID)
		}
		for _, b := range l.Spots[:i] {
			dx, dy := math.Abs(a.X-b.X), math.Abs(a.Y-b.Y)
			if l.Style == "layers" && dx < (a.Width+b.Width)/2 && dy < 37 || l.Style == "circle" && math.Hypot(dx, dy) < nodeArc*0.9 {
				t.Fatalf("%s: %s and %s overlap: %+v %+v", l.Style, g.Nodes[a.Node].ID, g.Nodes[b.Node].ID, a, b)
			}
		}
	}
	paths := make(map[int]bool)
	for _, p := range l.Paths {
		paths[p.Edge] = true
		if strings.Contains(p.Path, "NaN") {
			t.Fatalf("path %s", p.Path)
		}
	}
	for i := range g.Nodes {
		connected := false
		for j := range g.Edges {
			e := &g.Edges[j]
			if e.From != g.Nodes[i].ID && e.To != g.Nodes[i].ID {
				continue
			}
			connected = true
			if e.Named() && e.From != e.To && !paths[j] {
				t.Fatalf("%s: no path from %s to %s", l.Style, e.From, e.To)
			}
		}
		if !drawn[i] && (connected || !twoSided(&g.Nodes[i])) {
			t.Fatalf("%s: %s is not drawn", l.Style, g.Nodes[i].ID)
		}
	}
}

func BenchmarkFleet(b *testing.B) {
	p, _ := model.Parse([]model.File{{Name: "fleet.yaml", Data: []byte(fleet())}})
	for b.Loop() {
		var page bytes.Buffer
		if err := Write(&page, graph.Build(p)); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(page.Len()), "page-bytes")
	}
}
