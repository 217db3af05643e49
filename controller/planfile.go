package controller

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/nft"
)

// ErrChanged says that a saved plan does not fit the host any more.
var ErrChanged = errors.New("the host changed since the plan was made: plan again")

// planFileVersion changes when old plan files can't be applied any more.
const planFileVersion = 1

// planFile is a saved plan: the policy itself, and what the tables were and
// would become. Applying it plans again and refuses to go on if anything else
// came out.
type planFile struct {
	Version int             `json:"version"`
	Files   []model.File    `json:"files"`
	Devices []planFileTable `json:"devices"`
}

type planFileTable struct {
	Name string `json:"name"`
	Old  string `json:"old"` // digest of the table that was there; empty: none
	New  string `json:"new"`
}

// Save writes a plan for a policy that was read from these files.
func (p *Plan) Save(w io.Writer, files []model.File) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(planFile{Version: planFileVersion, Files: files, Devices: p.digests()})
}

func (p *Plan) digests() []planFileTable {
	var list []planFileTable
	for _, d := range p.Devices {
		list = append(list, planFileTable{Name: d.Name, Old: digest(d.Old), New: digest(d.New)})
	}
	return list
}

// Resume reads a saved plan and plans again. The error is ErrChanged if the
// kernel's tables are not what they were, or if the same policy now means
// something else because cgroups came or went.
func (h *Host) Resume(r io.Reader) (*Loaded, *Plan, error) {
	var saved planFile
	if err := json.NewDecoder(r).Decode(&saved); err != nil {
		return nil, nil, fmt.Errorf("this is no plan that plan --out saved (%w); a policy is named with -f", err)
	}
	if saved.Version != planFileVersion {
		return nil, nil, fmt.Errorf("read the plan: it has version %d, this sockns reads %d: plan again", saved.Version, planFileVersion)
	}
	loaded := parse(saved.Files)
	if loaded.Policy == nil {
		return loaded, nil, errors.New("the saved policy has errors: plan again")
	}
	plan, err := h.Plan(loaded.Policy)
	if err != nil {
		return loaded, nil, err
	}
	now := plan.digests()
	if len(now) != len(saved.Devices) {
		return loaded, nil, ErrChanged
	}
	for i := range now {
		if now[i] != saved.Devices[i] {
			return loaded, nil, fmt.Errorf("device namespace %s: %w", now[i].Name, ErrChanged)
		}
	}
	return loaded, plan, nil
}

// digest identifies what a table holds, but for what packets put there; empty
// for no table.
func digest(t *nft.Table) string {
	if t == nil {
		return ""
	}
	h := sha256.New()
	fmt.Fprintln(h, t.Name, t.Comment, t.Flags)
	for _, s := range t.Sets {
		fmt.Fprintln(h, "set", s.Name, s.Key, s.Data, s.Dynamic, s.Timeout, s.Size)
		if s.Dynamic {
			continue
		}
		lines := make([]string, 0, len(s.Elements))
		for _, e := range s.Elements {
			line := fmt.Sprint(e.Verdict, e.Data.Num, e.Comment)
			for _, k := range e.Key {
				line += fmt.Sprint(" ", k.Num, k.Addr)
			}
			lines = append(lines, line)
		}
		slices.Sort(lines)
		fmt.Fprintln(h, lines)
	}
	chains := slices.Clone(t.Chains)
	slices.SortFunc(chains, func(a, b nft.Chain) int { return strings.Compare(a.Name, b.Name) })
	for _, c := range chains {
		fmt.Fprintln(h, "chain", c.Name)
		for _, r := range c.Rules {
			for _, st := range r.Statements {
				if _, ok := st.(nft.Counter); ok {
					st = nft.Counter{}
				}
				fmt.Fprint(h, st, " ")
			}
			fmt.Fprintln(h)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}
