package compiler

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sockns/sockns/nft"
)

func TestCounted(t *testing.T) {
	refuse, pass := jumpTo(nft.VerdictGoto, refusePrefix+"out.connect.0.econnrefused"), jumpTo(nft.VerdictGoto, chainPass)
	for _, c := range []struct {
		comment string
		then    nft.Statement
		want    Counted
	}{
		{"connect 1: may connect db tcp/5432 [p.yaml:7]", pass, Counted{Rule: "connect 1: may connect db tcp/5432", Hook: "connect", Number: "1", Name: "may connect db tcp/5432", Outcome: Allowed}},
		{"connect 12: may not connect 10.0.0.1 (ETIMEDOUT)", refuse, Counted{Hook: "connect", Number: "12", Name: "may not connect 10.0.0.1 (ETIMEDOUT)", Outcome: Refused}},
		{"connect 2: may not connect any", pass, Counted{Hook: "connect", Number: "2", Name: "may not connect any", Outcome: Audited}},
		{"accept default: deny ECONNREFUSED", refuse, Counted{Hook: "accept", Number: "default", Name: "default", Outcome: Refused}},
		{"accept default: deny ECONNREFUSED", pass, Counted{Hook: "accept", Number: "default", Name: "default", Outcome: Audited}},
		{"connect default: allow", pass, Counted{Hook: "connect", Number: "default", Name: "default", Outcome: Allowed}},
		{"bind default: own addresses only", refuse, Counted{Hook: "bind", Number: "default", Name: "default", Outcome: Refused}},
		{"bind 1: may bind tcp/80", pass, Counted{Hook: "bind", Number: "1", Name: "may bind tcp/80", Outcome: Allowed}},
		{"accept 3: may accept from any udp/53, logged", pass, Counted{Hook: "accept", Number: "3", Name: "may accept from any udp/53, logged", Outcome: Allowed}},
	} {
		if c.want.Rule == "" {
			c.want.Rule = c.comment
		}
		c.want.Packets = 3
		got := counted(&nft.Rule{Comment: c.comment, Statements: []nft.Statement{nft.Counter{Packets: 3}, c.then}})
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", c.comment, diff)
		}
	}
}
