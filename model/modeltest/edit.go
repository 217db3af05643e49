package modeltest

import (
	"strings"

	"pgregory.net/rapid"
)

// Edited draws the text of a policy that differs from another's by a few
// edits: lines of rules and of keys that are removed, repeated, exchanged with
// the next, or taken from elsewhere.
func Edited(text string) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		lines := strings.Split(text, "\n")
		for range rapid.IntRange(1, 3).Draw(t, "edits") {
			var rules []int
			for i, l := range lines {
				if strings.HasPrefix(l, "      - {") {
					rules = append(rules, i)
				}
			}
			if len(rules) < 2 {
				break
			}
			i := rapid.SampledFrom(rules).Draw(t, "line")
			switch rapid.IntRange(0, 3).Draw(t, "edit") {
			case 0: // unless it is the only rule of its list
				if strings.HasPrefix(lines[i-1], "      - {") || strings.HasPrefix(lines[i+1], "      - {") {
					lines = append(lines[:i:i], lines[i+1:]...)
				}
			case 1:
				lines = append(lines[:i:i], append([]string{lines[i]}, lines[i:]...)...)
			case 2:
				if strings.HasPrefix(lines[i+1], "      - {") {
					lines[i], lines[i+1] = lines[i+1], lines[i]
				}
			default:
				for _, j := range rules {
					if list(lines, i) == list(lines, j) && i != j {
						lines[i] = lines[j]
						break
					}
				}
			}
		}
		return strings.Join(lines, "\n")
	})
}

// list returns the key of the list that a line is in.
func list(lines []string, i int) string {
	for strings.HasPrefix(lines[i], "      - {") {
		i--
	}
	return lines[i]
}
