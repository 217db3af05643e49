package lint_test

import (
	"encoding/json"
	"net/url"
	"testing"

	"github.com/sockns/sockns/lint"
	"github.com/sockns/sockns/model"
)

// TestSARIF reads a log back and looks for what the format asks for: rules that
// results point to, places that count from 1, artifacts that are URIs.
func TestSARIF(t *testing.T) {
	place := model.Position{File: "dir/a policy.yaml", Line: 7, Column: 9}
	absolute := model.Position{File: "/etc/sockns/b#c.yaml", Line: 1, Column: 1}
	var list []lint.Finding
	for _, k := range lint.Kinds {
		list = append(list, lint.Finding{
			ID: k.ID, Pos: place, Rule: "may connect any", Message: "it can never match", Remedy: "remove it",
			Related: []lint.Related{{Pos: absolute, Message: "rule 1"}},
		})
	}
	data, err := json.Marshal(lint.SARIF(list, "v1"))
	if err != nil {
		t.Fatal(err)
	}
	type location struct {
		ID               int
		Message          struct{ Text string }
		PhysicalLocation struct {
			ArtifactLocation struct{ URI string }
			Region           struct{ StartLine, StartColumn int }
		}
	}
	var log struct {
		Version string
		Runs    []struct {
			Tool struct {
				Driver struct {
					Name, Version string
					Rules         []struct {
						ID                     string
						ShortDescription, Help struct{ Text string }
					}
				}
			}
			Results []struct {
				RuleID                      string
				RuleIndex                   int
				Level                       string
				Message                     struct{ Text string }
				Locations, RelatedLocations []location
			}
		}
	}
	if err := json.Unmarshal(data, &log); err != nil {
		t.Fatal(err)
	}
	if log.Version != "2.1.0" || len(log.Runs) != 1 || len(log.Runs[0].Results) != len(list) {
		t.Fatalf("%s", data)
	}
	driver := log.Runs[0].Tool.Driver
	if driver.Name != "sockns" || driver.Version != "v1" {
		t.Errorf("driver %+v", driver)
	}
	for i, r := range log.Runs[0].Results {
		rule := driver.Rules[r.RuleIndex]
		if rule.ID != r.RuleID || rule.ID != list[i].ID || rule.Help.Text == "" || rule.ShortDescription.Text == "" {
			t.Errorf("result %d is of rule %q, %+v", i, r.RuleID, rule)
		}
		if r.Level != "warning" || r.Message.Text != "it can never match (may connect any); remove it." {
			t.Errorf("result %d: %+v", i, r)
		}
		for _, at := range []struct {
			list []location
			uri  string
			pos  model.Position
		}{{r.Locations, "dir/a%20policy.yaml", place}, {r.RelatedLocations, "file:///etc/sockns/b%23c.yaml", absolute}} {
			if len(at.list) != 1 {
				t.Fatalf("result %d: %+v", i, r)
			}
			got := at.list[0].PhysicalLocation
			if got.ArtifactLocation.URI != at.uri || got.Region.StartLine != at.pos.Line || got.Region.StartColumn != at.pos.Column {
				t.Errorf("%s is told as %+v", at.pos, got)
			}
			if _, err := url.Parse(got.ArtifactLocation.URI); err != nil {
				t.Error(err)
			}
		}
	}
}
