package compiler

import (
	"strings"
	"testing"

	"github.com/sockns/sockns/model"
)

// TestSharedNamesStay edits the first of namespaces that share their chains: the
// others keep them.
func TestSharedNamesStay(t *testing.T) {
	policiesOf := func(port string) map[string]string {
		text := "apiVersion: sockns/v1\nsocketNamespaces:\n"
		for _, name := range []string{"a", "b", "c"} {
			text += "  " + name + ":\n    members: [{cgroup: /" + name + "}]\n    connect: [{protocol: tcp, ports: 80, to: any}]\n"
		}
		p := parse(t, []byte(strings.Replace(text, "ports: 80", "ports: "+port, 1)))
		prog := CompileWith(p, Facts{Devices: map[string]DeviceFacts{model.HostDevice: {}}}, AllPasses)
		names := make(map[string]string)
		for _, d := range Describe(prog.Devices[0].Table) {
			names[d.Name] = d.Policy
		}
		return names
	}
	was, is := policiesOf("80"), policiesOf("81")
	if was["a"] == "" || was["a"] != was["b"] || was["b"] != was["c"] {
		t.Fatalf("not shared: %v", was)
	}
	if is["b"] != was["b"] || is["c"] != was["c"] || is["a"] == was["a"] {
		t.Errorf("%v became %v", was, is)
	}
}
