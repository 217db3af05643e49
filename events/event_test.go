package events

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sockns/sockns/compiler"
)

var drift = Event{
	Sequence: 7, Time: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), Kind: DriftRepaired, Device: "host",
	Message: "somebody else changed nftables", Took: 0.0015,
	By:    []Actor{{PID: 42, Process: "nft", Unit: "ssh.service", Did: []string{"delete table"}}},
	Steps: []compiler.Step{{Op: compiler.Add, Namespace: "web", Text: "may connect db tcp/5432"}},
}

func TestText(t *testing.T) {
	want := `drift-repaired host: somebody else changed nftables
    by pid 42 (nft) of ssh.service: delete table
    + web may connect db tcp/5432`
	if diff := cmp.Diff(want, drift.String()); diff != "" {
		t.Error(diff)
	}
	broken := Event{Kind: PolicyBroken, Message: "the last good policy stays in force",
		Problems: []Problem{{"p.yaml", 2, 1, "error", "unknown key"}}}
	want = "policy-broken: the last good policy stays in force\n    p.yaml:2:1: error: unknown key"
	if diff := cmp.Diff(want, broken.String()); diff != "" {
		t.Error(diff)
	}
}

func TestJSON(t *testing.T) {
	text, err := json.Marshal(drift)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"sequence":7,"time":"2026-01-02T03:04:05.000006Z","kind":"drift-repaired","deviceNamespace":"host",` +
		`"message":"somebody else changed nftables","tookSeconds":0.0015,"steps":[{"op":"+","namespace":"web","text":"may connect db tcp/5432"}],` +
		`"by":[{"pid":42,"process":"nft","unit":"ssh.service","did":["delete table"]}]}`
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Error(diff)
	}
	var back Event
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(drift, back); diff != "" {
		t.Error(diff)
	}
}

func TestLog(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	drift.LogTo(log)
	quiet := Event{Kind: MemberJoined, Cgroup: "/web"}
	quiet.LogTo(log)
	want := `level=WARN msg=drift-repaired message="somebody else changed nftables" device=host took=1.5ms by.pid=42 by.process=nft by.unit=ssh.service by.did="[delete table]"
level=WARN msg="drift-repaired: step" what="+ web may connect db tcp/5432" device=host
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestSteps(t *testing.T) {
	var e Event
	e.SetSteps(make([]compiler.Step, mostSteps+5))
	if len(e.Steps) != mostSteps || e.MoreSteps != 5 {
		t.Errorf("%d steps, %d more", len(e.Steps), e.MoreSteps)
	}
	if !strings.HasSuffix(e.String(), "and 5 more") {
		t.Error("the text does not say that there are more")
	}
}
