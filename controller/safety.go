package controller

import (
	"time"

	"github.com/sockns/sockns/compiler"
)

// secondLook is how long after a safety resync that met a difference the next
// one follows.
const secondLook = time.Second

// differences are the steps that would mend what differs, by device namespace.
type differences map[string]map[compiler.Step]bool

// safetyLook compares everything although nothing said that it changed. What
// differs may have been announced at this moment: it is noted, and a bug only
// if it is still there at the second look, which mends it.
func (r *Reconciler) safetyLook() error {
	plan, err := r.plan(false)
	if err != nil || !plan.Changes() {
		return err
	}
	r.unannounced = make(differences)
	for _, d := range plan.Devices {
		if d.Change.Empty() {
			continue
		}
		steps := make(map[compiler.Step]bool)
		for _, s := range d.Steps {
			steps[s] = true
		}
		r.unannounced[d.Name] = steps
	}
	return nil
}

// still reports whether a difference that was noted is met again.
func (l differences) still(d DevicePlan) bool {
	steps, noted := l[d.Name]
	for _, s := range d.Steps {
		if steps[s] {
			return true
		}
	}
	return noted && len(steps) == 0 && len(d.Steps) == 0 // in no policy's words
}
