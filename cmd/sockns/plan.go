package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/flowset"
)

func (c *cli) planCommand() *cobra.Command {
	var files []string
	var out, from string
	var detailed bool
	cmd := &cobra.Command{
		Use:   "plan -f PATH...",
		Short: "Say what apply would change, in the policy's own words; nothing is touched",
		Long: `Plan compares a policy with what the kernel holds and says what apply would
change: + is added, ~ changed, - removed. Below it stands what differs from
what was asked: errors that packets can't give, members that don't exist.

With --from it says too which flows become allowed (+) or refused (-), or get
another errno (~), compared with another policy: the one that was applied last,
from version control for example. What means the same is not listed.

With --detailed-exitcode the exit status is 0 if nothing would change, 2 if
something would, and 1 on an error.`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			loaded, err := c.load(files)
			if err != nil {
				return err
			}
			var flows []flowset.Change
			if from != "" {
				before, err := c.load([]string{from})
				if err != nil {
					return err
				}
				flows = flowset.Compare(before.Policy, loaded.Policy)
			}
			host, err := controller.OpenHost()
			if err != nil {
				return err
			}
			defer host.Close()
			plan, err := c.planLoaded(host, loaded)
			if err != nil {
				return err
			}
			refused, err := c.refused(host, plan, false)
			if err != nil {
				return err
			}
			if err := c.printPlan(plan, alongside{refused: refused, flows: flows}); err != nil {
				return err
			}
			if out != "" {
				if err := savePlan(plan, loaded, out); err != nil {
					return err
				}
				fmt.Fprintf(c.err, "saved: apply it with `sockns apply %s`\n", out)
			}
			if detailed && plan.Changes() {
				return exitStatus(2)
			}
			return nil
		},
	}
	fileFlag(cmd, &files)
	cmd.Flags().StringVar(&from, "from", "", "policy `file` or directory to compare flows with")
	cmd.Flags().StringVar(&out, "out", "", "save the plan to this `file`, for apply")
	cmd.Flags().BoolVar(&detailed, "detailed-exitcode", false, "exit with 2 if something would change")
	return cmd
}

func savePlan(plan *controller.Plan, loaded *controller.Loaded, path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := plan.Save(f, loaded.Files); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

type planJSON struct {
	Changes  bool             `json:"changes"`
	Devices  []planDeviceJSON `json:"deviceNamespaces"`
	Syscalls planSyscallsJSON `json:"syscalls"`
	Notes    []noteJSON       `json:"notes"`
	// Refused are the sockets that could not be made again.
	Refused []socketJSON     `json:"refusedSockets"`
	Flows   []flowset.Change `json:"flows,omitzero"` // with --from
}

type planSyscallsJSON struct {
	Available bool   `json:"available"`
	Changes   bool   `json:"changes"`
	Variant   string `json:"variant,omitempty"`
	Why       string `json:"why,omitempty"`
}

type planDeviceJSON struct {
	Name    string          `json:"name"`
	Changes bool            `json:"changes"`
	Steps   []compiler.Step `json:"steps"`
}

type noteJSON struct {
	Position  string `json:"position,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Text      string `json:"text"`
}

// alongside is what is printed with a plan.
type alongside struct {
	refused []controller.RefusedSocket // that exist
	revoke  bool                       // those that can be will be closed
	flows   []flowset.Change           // that change; nil if they were not compared
}

func (c *cli) printPlan(plan *controller.Plan, with alongside) error {
	if c.output == "json" {
		j := planToJSON(plan, with.refused)
		j.Flows = with.flows
		return c.json(j)
	}
	c.printSteps(plan)
	if with.flows != nil {
		fmt.Fprintln(c.out, c.bold("flows"))
		c.printFlows(with.flows, "  ")
		if len(with.flows) == 0 {
			fmt.Fprintln(c.out, "  none is decided differently")
		}
	}
	if plan.Policy != nil && !plan.Calls.Support.OK() {
		fmt.Fprintf(c.out, "%s bind(2) and connect(2) are not answered by the kernel itself, packets enforce alone: %s\n", c.yellow("note:"), plan.Calls.Support.Why)
	}
	c.printNotes(plan.Notes)
	c.printRefused(with.refused, with.revoke)
	return nil
}

func (c *cli) printNotes(notes []compiler.Note) {
	for _, n := range notes {
		where := ""
		if n.Namespace != "" {
			where = n.Namespace + ": "
		}
		fmt.Fprintf(c.out, "%s %s%s (%s)\n", c.yellow("note:"), where, n.Text, n.Pos)
	}
}

func notesToJSON(notes []compiler.Note) []noteJSON {
	list := []noteJSON{}
	for _, n := range notes {
		list = append(list, noteJSON{n.Pos.String(), n.Namespace, n.Text})
	}
	return list
}

func planToJSON(plan *controller.Plan, refused []controller.RefusedSocket) planJSON {
	calls := plan.Calls
	j := planJSON{
		Changes: plan.Changes(), Devices: []planDeviceJSON{}, Notes: notesToJSON(plan.Notes),
		Refused:  socketsToJSON(refused),
		Syscalls: planSyscallsJSON{calls.Support.OK(), calls.Change, string(calls.Support.Variant), calls.Support.Why},
	}
	for _, d := range plan.Devices {
		steps := d.Steps
		if steps == nil {
			steps = []compiler.Step{}
		}
		j.Devices = append(j.Devices, planDeviceJSON{d.Name, !d.Change.Empty(), steps})
	}
	return j
}

// printSteps prints what changes in each device namespace, and a summary.
func (c *cli) printSteps(plan *controller.Plan) {
	counts := map[compiler.Op]int{}
	for _, d := range plan.Devices {
		if d.Change.Empty() {
			continue
		}
		fmt.Fprintf(c.out, "%s\n", c.bold("device namespace "+d.Name))
		for _, s := range d.Steps {
			counts[s.Op]++
			fmt.Fprintf(c.out, "  %s %s\n", c.op(s.Op), s)
		}
		if len(d.Steps) == 0 {
			counts[compiler.Change]++
			fmt.Fprintf(c.out, "  %s %s\n", c.op(compiler.Change), upkeep(d))
		}
	}
	if text, op := syscallStep(plan, len(counts) > 0); text != "" {
		counts[op]++
		fmt.Fprintf(c.out, "%s\n  %s %s\n", c.bold("syscall tier"), c.op(op), text)
	}
	if !plan.Changes() {
		fmt.Fprintln(c.out, "nothing changes")
		return
	}
	fmt.Fprintf(c.out, "%d to add, %d to change, %d to remove\n", counts[compiler.Add], counts[compiler.Change], counts[compiler.Remove])
}

// syscallStep says what changes in the syscall tier and does not follow from
// the steps of the device namespaces.
func syscallStep(plan *controller.Plan, others bool) (string, compiler.Op) {
	switch {
	case !plan.Calls.Change:
		return "", ""
	case plan.Calls.Program == nil:
		return "bind(2), connect(2) and sendto(2) are the kernel's alone again", compiler.Remove
	case plan.Calls.Install:
		return "bind(2), connect(2) and sendto(2) answer with the rules' errors", compiler.Add
	case others:
		return "", ""
	default:
		return "it is brought up to date with the members and addresses of this machine", compiler.Change
	}
}

// upkeep says what changes where the policy's words stay the same.
func upkeep(d controller.DevicePlan) string {
	switch {
	case d.Change.Rebuild:
		return "the table was tampered with and is made anew"
	case d.Change.Semantic():
		return "the table is mended: addresses of this machine, or what somebody else changed"
	default:
		return "comments only: the rules moved in their files"
	}
}

func (c *cli) op(op compiler.Op) string {
	switch op {
	case compiler.Add:
		return c.green("+")
	case compiler.Remove:
		return c.red("-")
	default:
		return c.yellow("~")
	}
}
