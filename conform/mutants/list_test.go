package main

import (
	"path/filepath"
	"testing"
)

// TestPlaces has the list follow the compiler: each fault has its place there.
func TestPlaces(t *testing.T) {
	for _, m := range mutants {
		if _, err := m.text(filepath.Join("../../compiler", m.file)); err != nil {
			t.Errorf("%s: %v", m.fault, err)
		}
	}
}
