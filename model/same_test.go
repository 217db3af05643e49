package model

import (
	"reflect"
	"testing"
)

// TestSameKnowsAllFields changes each field of a socket namespace and of a rule
// in turn: Same has to tell.
func TestSameKnowsAllFields(t *testing.T) {
	text := "apiVersion: sockns/v1\nsocketNamespaces:\n  a:\n    members: [{cgroup: /a}]\n    addresses: [192.0.2.1]\n" +
		"    bind: [{protocol: tcp, ports: 1}]\n    connect: [{protocol: tcp, ports: 1, local: 192.0.2.1, to: any}]\n    accept: [{protocol: tcp, ports: 1}]\n" +
		"    default: {bind: allow, connect: allow, accept: allow}\n"
	read := func() *SocketNamespace {
		p, diags := Parse([]File{{Name: "p.yaml", Data: []byte(text)}})
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		return &p.SocketNamespaces[0]
	}
	if !read().Same(read()) {
		t.Error("read twice, and not the same")
	}
	var differ func(v reflect.Value, path string, n *SocketNamespace)
	differ = func(v reflect.Value, path string, n *SocketNamespace) {
		old := reflect.New(v.Type()).Elem()
		old.Set(v)
		switch v.Kind() {
		case reflect.String:
			v.SetString(v.String() + "x")
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.Int:
			v.SetInt(v.Int() + 1)
		case reflect.Uint8, reflect.Uint16:
			v.SetUint(v.Uint() + 1)
		case reflect.Slice, reflect.Pointer:
			v.SetZero()
		case reflect.Struct:
			for i := range v.NumField() {
				if v.Type().Field(i).IsExported() {
					differ(v.Field(i), path+"."+v.Type().Field(i).Name, n)
				}
			}
			return
		default:
			t.Fatalf("%s is a %s", path, v.Kind())
		}
		if path != ".Peers" || old.Len() > 0 { // of a bind rule there are none
			if !old.IsZero() || !v.IsZero() {
				if n.Same(read()) {
					t.Errorf("%s is another, and Same", path)
				}
			}
		}
		v.Set(old)
	}
	n := read()
	differ(reflect.ValueOf(n).Elem(), "", n)
	for _, h := range Hooks {
		rule := &n.Rules(h)[0]
		differ(reflect.ValueOf(rule).Elem(), "", n)
	}
	for _, o := range []*Outcome{n.Default.Bind, n.Default.Connect, n.Default.Accept} {
		differ(reflect.ValueOf(o).Elem(), "", n)
	}
}
