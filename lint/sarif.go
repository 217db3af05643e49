package lint

import (
	"net/url"
	"path/filepath"

	"github.com/sockns/sockns/model"
)

// SARIF returns findings as a log of the Static Analysis Results Interchange
// Format 2.1.0 (OASIS), whose artifacts are the files as they were named. It is
// to be encoded as JSON.
func SARIF(list []Finding, version string) any {
	driver := sarifDriver{Name: "sockns", InformationURI: "https://github.com/sockns/sockns", Version: version}
	index := make(map[string]int)
	for i, k := range Kinds {
		index[k.ID] = i
		driver.Rules = append(driver.Rules, sarifRule{
			ID: k.ID, ShortDescription: sarifText{k.Short}, FullDescription: sarifText{k.Short + " " + k.Help}, Help: sarifText{k.Help},
			DefaultConfiguration: sarifConfiguration{"warning"},
		})
	}
	results := make([]sarifResult, len(list))
	for i, f := range list {
		text := f.Message + "; " + f.Remedy + "."
		if f.Rule != "" {
			text = f.Message + " (" + f.Rule + "); " + f.Remedy + "."
		}
		results[i] = sarifResult{
			RuleID: f.ID, RuleIndex: index[f.ID], Level: "warning", Message: sarifText{text},
			Locations: []sarifLocation{{PhysicalLocation: physical(f.Pos)}},
		}
		for j, r := range f.Related {
			results[i].RelatedLocations = append(results[i].RelatedLocations, sarifLocation{ID: j + 1, PhysicalLocation: physical(r.Pos), Message: &sarifText{r.Message}})
		}
	}
	return sarifLog{
		Schema: "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json", Version: "2.1.0",
		Runs: []sarifRun{{Tool: sarifTool{driver}, ColumnKind: "unicodeCodePoints", Results: results}},
	}
}

func physical(pos model.Position) sarifPhysical {
	uri := url.URL{Path: filepath.ToSlash(pos.File)}
	if filepath.IsAbs(pos.File) {
		uri.Scheme = "file"
	}
	return sarifPhysical{sarifArtifact{uri.String()}, sarifRegion{pos.Line, pos.Column}}
}

type sarifLog struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool       sarifTool     `json:"tool"`
	ColumnKind string        `json:"columnKind"`
	Results    []sarifResult `json:"results"`
}

type sarifTool struct {
	Driver sarifDriver `json:"driver"`
}

type sarifDriver struct {
	Name           string      `json:"name"`
	InformationURI string      `json:"informationUri"`
	Version        string      `json:"version,omitempty"`
	Rules          []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID                   string             `json:"id"`
	ShortDescription     sarifText          `json:"shortDescription"`
	FullDescription      sarifText          `json:"fullDescription"`
	Help                 sarifText          `json:"help"`
	DefaultConfiguration sarifConfiguration `json:"defaultConfiguration"`
}

type sarifConfiguration struct {
	Level string `json:"level"`
}

type sarifText struct {
	Text string `json:"text"`
}

type sarifResult struct {
	RuleID           string          `json:"ruleId"`
	RuleIndex        int             `json:"ruleIndex"`
	Level            string          `json:"level"`
	Message          sarifText       `json:"message"`
	Locations        []sarifLocation `json:"locations"`
	RelatedLocations []sarifLocation `json:"relatedLocations,omitempty"`
}

type sarifLocation struct {
	ID               int           `json:"id,omitempty"`
	PhysicalLocation sarifPhysical `json:"physicalLocation"`
	Message          *sarifText    `json:"message,omitempty"`
}

type sarifPhysical struct {
	ArtifactLocation sarifArtifact `json:"artifactLocation"`
	Region           sarifRegion   `json:"region"`
}

type sarifArtifact struct {
	URI string `json:"uri"`
}

type sarifRegion struct {
	StartLine   int `json:"startLine"`
	StartColumn int `json:"startColumn"`
}
