package model

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

var updateSchema = flag.Bool("update-schema", false, "write model/schema.json")

// TestSchemaIsCurrent compares the committed schema with the tables it is made from.
func TestSchemaIsCurrent(t *testing.T) {
	if *updateSchema {
		if err := os.WriteFile("schema.json", Schema(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, Schema()) {
		t.Error("model/schema.json is not what Schema returns: go test ./model -run Schema -update-schema")
	}
}

// TestDocumentedLanguage reads each policy of docs/language.md, the README and
// the examples as the parser and as the schema do, and looks for keys that the
// documentation has no example of.
func TestDocumentedLanguage(t *testing.T) {
	schema := compiledSchema(t)
	policies := make(map[string]string)
	for _, file := range []string{"../docs/language.md", "../docs/testing-policies.md", "../README.md"} {
		for name, text := range yamlBlocks(t, file) {
			policies[name] = text
		}
	}
	examples, err := filepath.Glob("../examples/*.yaml")
	if err != nil || len(examples) < 4 {
		t.Fatalf("%d examples: %v", len(examples), err)
	}
	for _, file := range examples {
		policies[file] = read(t, file)
	}
	used := make(map[string]bool)
	for name, text := range policies {
		if !strings.Contains(text, "apiVersion:") {
			text = "apiVersion: " + APIVersion + "\n" + text
		}
		if _, diags := Parse([]File{{Name: name, Data: []byte(text)}}); diags.HasErrors() {
			t.Errorf("%s: %v", name, diags)
		}
		if err := schema.Validate(decodeYAML(t, text)); err != nil {
			t.Errorf("%s: the schema refuses it: %v", name, err)
		}
		if strings.Contains(name, "language.md") {
			collectKeys(decodeYAML(t, text), used)
		}
	}
	for _, table := range [][]key{policyKeys, deviceKeys, namespaceKeys, memberKeys, bindKeys, connectKeys, acceptKeys, defaultsKeys, outcomeKeys, enforcementKeys} {
		for _, k := range table {
			if !used[k.name] {
				t.Errorf("docs/language.md has no example of the key %s", k.name)
			}
		}
	}
}

// TestSchemaRefuses checks that the schema finds the mistakes of shape that
// the parser finds.
func TestSchemaRefuses(t *testing.T) {
	schema := compiledSchema(t)
	for _, text := range []string{
		"socketNamespaces: {}",
		"apiVersion: sockns/v2",
		"apiVersion: sockns/v1\nsocketNamespace: {}",
		"apiVersion: sockns/v1\nsocketNamespaces: {Web: {members: [{unit: a.service}]}}",
		"apiVersion: sockns/v1\nsocketNamespaces: {self: {members: [{unit: a.service}]}}",
		"apiVersion: sockns/v1\nsocketNamespaces: {web: {}}",
		"apiVersion: sockns/v1\nsocketNamespaces: {web: {members: [{unit: a.service}], each: /a/*}}",
		"apiVersion: sockns/v1\nsocketNamespaces: {web: {members: [{unit: a.service, cgroup: /a}]}}",
		"apiVersion: sockns/v1\nsocketNamespaces: {web: {members: [{unit: a.service}], bind: [{to: any}]}}",
		"apiVersion: sockns/v1\nsocketNamespaces: {web: {members: [{unit: a.service}], connect: [{ports: 0}]}}",
		"apiVersion: sockns/v1\nsocketNamespaces: {web: {members: [{unit: a.service}], connect: [{action: deny, error: EADDRINUSE}]}}",
		"apiVersion: sockns/v1\nsocketNamespaces: {web: {members: [{unit: a.service}], mode: off}}",
	} {
		if schema.Validate(decodeYAML(t, text)) == nil {
			t.Errorf("the schema accepts %q", text)
		}
		if _, diags := Parse([]File{{Name: "p.yaml", Data: []byte(text)}}); !diags.HasErrors() {
			t.Errorf("the parser accepts %q", text)
		}
	}
}

func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// decodeYAML returns a YAML document as the values that JSON has.
func decodeYAML(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

func yamlBlocks(t *testing.T, file string) map[string]string {
	t.Helper()
	text := read(t, file)
	blocks := make(map[string]string)
	for _, m := range yamlBlock.FindAllStringSubmatchIndex(text, -1) {
		line := 1 + strings.Count(text[:m[2]], "\n")
		blocks[Position{file, line, 1}.String()] = text[m[2]:m[3]]
	}
	if len(blocks) == 0 {
		t.Fatalf("%s has no YAML", file)
	}
	return blocks
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func collectKeys(v any, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for k, item := range v {
			into[k] = true
			collectKeys(item, into)
		}
	case []any:
		for _, item := range v {
			collectKeys(item, into)
		}
	}
}
