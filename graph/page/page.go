// Package page makes a self-contained HTML page of a graph: no network, no
// scripts of others. It is drawn and searched by page.js; where everything
// stands is worked out here, so that it is the same each time and tests can
// look at it without a browser.
package page

import (
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"strings"

	"github.com/sockns/sockns/graph"
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string
	//go:embed js
	scripts embed.FS

	pageTemplate = template.Must(template.New("page").Parse(pageHTML))
)

// pageJS is the scripts in the order in which they need each other.
func pageJS() (string, error) {
	var all strings.Builder
	for _, name := range []string{"data", "state", "map", "matrix", "list", "panel", "main"} {
		text, err := scripts.ReadFile("js/" + name + ".js")
		if err != nil {
			return "", err
		}
		all.Write(text)
	}
	return all.String(), nil
}

// Write writes the page of a graph.
func Write(w io.Writer, g *graph.Graph) error {
	// encoding/json escapes <, > and &, so that no text ends the script element.
	data, err := json.Marshal(struct {
		*graph.Graph
		Layout Layout `json:"layout"`
	}{g, layOut(g)})
	if err != nil {
		return fmt.Errorf("page: %w", err)
	}
	js, err := pageJS()
	if err != nil {
		return fmt.Errorf("page: %w", err)
	}
	return pageTemplate.Execute(w, struct {
		CSS  template.CSS
		JS   template.JS
		Data template.JS
	}{template.CSS(pageCSS), template.JS(js), template.JS(data)})
}
