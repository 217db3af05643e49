package nft

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// readAttempts is how often a table is read anew because the ruleset changed
// meanwhile.
const readAttempts = 10

// ErrBusy is the error of a read that could not be completed between two commits
// of others.
var ErrBusy = errors.New("nft: ruleset keeps changing while it is read")

// Table reads a table of family inet: its chains and rules, sets and elements.
// The error is [os.ErrNotExist] through errors.Is if there is none, and
// [ErrBusy] if others commit all the time.
func (c *Conn) Table(name string) (*Table, error) {
	t, _, err := c.Snapshot(name)
	return t, err
}

// Snapshot is [Conn.Table] with the generation that was read, also if there is
// no such table then. The kernel's dumps lose and double objects when somebody
// commits meanwhile, so the generation is compared before and after.
func (c *Conn) Snapshot(name string) (*Table, Generation, error) {
	return c.between(name, func() (*Table, error) { return c.readTable(name) })
}

// between calls read until nobody has committed meanwhile.
func (c *Conn) between(name string, read func() (*Table, error)) (*Table, Generation, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for attempt := range readAttempts {
		time.Sleep(time.Duration(attempt) * time.Millisecond)
		before, err := c.generation()
		if err != nil {
			return nil, before, err
		}
		t, readErr := read()
		after, err := c.generation()
		if err != nil {
			return nil, after, err
		}
		if before.ID != after.ID || errors.Is(readErr, errInterrupted) {
			continue
		}
		if readErr != nil {
			return nil, after, fmt.Errorf("nft: read table %s: %w", name, readErr)
		}
		return t, after, nil
	}
	return nil, Generation{}, fmt.Errorf("nft: read table %s: %w", name, ErrBusy)
}

// Chains reads some chains of a table. The error is [os.ErrNotExist] through
// errors.Is if one is not there.
func (c *Conn) Chains(table string, names []string) ([]Chain, Generation, error) {
	t, generation, err := c.between(table, func() (*Table, error) {
		t := Table{Name: table, Chains: make([]Chain, len(names))}
		for i, name := range names {
			if err := c.readChain(table, name, &t.Chains[i]); err != nil {
				return nil, fmt.Errorf("chain %s: %w", name, err)
			}
		}
		return &t, nil
	})
	if err != nil {
		return nil, generation, err
	}
	return t.Chains, generation, nil
}

func (c *Conn) readChain(table, name string, chain *Chain) error {
	err := c.get(unix.NFT_MSG_GETCHAIN, nfprotoInet,
		func(w *wire) {
			w.str(unix.NFTA_CHAIN_TABLE, table)
			w.str(unix.NFTA_CHAIN_NAME, name)
		},
		func(a attrs) (err error) {
			_, *chain, err = decodeChain(a)
			return err
		})
	if err != nil {
		return err
	}
	return c.readRulesOf(table, chain)
}

// readRulesOf adds the rules of a chain to it.
func (c *Conn) readRulesOf(table string, chain *Chain) error {
	return c.readRules(table, chain.Name, func(a attrs) error {
		var r Rule
		var err error
		r, c.scratch, err = decodeRule(a, c.scratch)
		chain.Rules = append(chain.Rules, r)
		return err
	})
}

// Tables returns the names of the tables of family inet.
func (c *Conn) Tables() ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	err := c.dump(unix.NFT_MSG_GETTABLE, nil, func(a attrs) error {
		t, err := decodeTable(a)
		names = append(names, t.Name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("nft: list tables: %w", err)
	}
	return names, nil
}

func (c *Conn) readTable(name string) (*Table, error) {
	t, err := c.header(name)
	if err != nil {
		return nil, err
	}
	if err := c.readSets(&t, func(string) bool { return true }); err != nil {
		return nil, err
	}
	if t.Chains, err = c.readChains(name); err != nil {
		return nil, err
	}
	for i := range t.Chains {
		if err := c.readRulesOf(name, &t.Chains[i]); err != nil {
			return nil, err
		}
	}
	return &t, nil
}

// header reads a table without its contents.
func (c *Conn) header(name string) (t Table, err error) {
	err = c.get(unix.NFT_MSG_GETTABLE, nfprotoInet,
		func(w *wire) { w.str(unix.NFTA_TABLE_NAME, name) },
		func(a attrs) (err error) {
			t, err = decodeTable(a)
			return err
		})
	return t, err
}

// readChains reads the chains of a table, without their rules.
func (c *Conn) readChains(table string) (chains []Chain, err error) {
	err = c.eachChain(table, func(chain Chain) { chains = append(chains, chain) })
	return chains, err
}

// eachChain reads the chains of a table without their rules.
func (c *Conn) eachChain(table string, visit func(Chain)) error {
	return c.dump(unix.NFT_MSG_GETCHAIN,
		func(w *wire) { w.str(unix.NFTA_CHAIN_TABLE, table) },
		func(a attrs) error {
			of, chain, err := decodeChain(a)
			if of == table {
				visit(chain)
			}
			return err
		})
}

// readRules reads the rules of one chain. A dump of a whole table's walks past
// all rules that it has told already, for each datagram of answers.
func (c *Conn) readRules(table, chain string, read func(attrs) error) error {
	return c.dump(unix.NFT_MSG_GETRULE,
		func(w *wire) {
			w.str(unix.NFTA_RULE_TABLE, table)
			w.str(unix.NFTA_RULE_CHAIN, chain)
		}, read)
}

// readSets reads the sets of a table that are wanted.
func (c *Conn) readSets(t *Table, wanted func(name string) bool) error {
	err := c.dump(unix.NFT_MSG_GETSET,
		func(w *wire) { w.str(unix.NFTA_SET_TABLE, t.Name) },
		func(a attrs) error {
			s, err := decodeSet(a)
			if !s.anonymous() && wanted(s.Name) {
				t.Sets = append(t.Sets, s)
			}
			return err
		})
	if err != nil {
		return err
	}
	for i := range t.Sets {
		s := &t.Sets[i]
		if s.Dynamic || s.Key == nil {
			continue
		}
		err := c.dump(unix.NFT_MSG_GETSETELEM,
			func(w *wire) {
				w.str(unix.NFTA_SET_ELEM_LIST_TABLE, t.Name)
				w.str(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
			},
			func(a attrs) error { return decodeElements(a, s) })
		if err != nil {
			return err
		}
		if s.Interval && checkInterval(s) == nil {
			s.join()
		}
	}
	return nil
}

// anonymous reports whether the set belongs to a foreign rule and goes with it:
// the kernel numbers those, and gives their names a form that no other may have.
func (s *Set) anonymous() bool { return len(s.Name) > 2 && s.Name[:2] == "__" }

// decodeElements reads a list of elements into their set.
func decodeElements(a attrs, s *Set) error {
	for a.next() {
		if a.typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		list := a.nested()
		for list.next() {
			e, ok, err := decodeElement(list.nested(), s)
			if err != nil {
				return err
			}
			if !ok {
				s.Foreign = true
				continue
			}
			s.Elements = append(s.Elements, e)
		}
		a.bad = a.bad || list.bad
	}
	return a.err()
}
