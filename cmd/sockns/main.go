// Command sockns keeps network socket namespaces: sets of sockets, named by
// cgroup or systemd unit, with rules for what they may bind, connect to and
// accept from. See the README.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

// errorStatusKey is the annotation of a command whose status is 2 on an error,
// as 1 is an answer.
const errorStatusKey = "errorStatus"

// run executes one command line and returns its exit status.
func run(args []string) int {
	c := newCLI(os.Stdin, os.Stdout, os.Stderr)
	root := c.command()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(context.Background())
	var answer exitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &answer):
		return int(answer)
	case !errors.Is(err, errSaid):
		if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
			err = fmt.Errorf("%w: run it as root", err)
		}
		fmt.Fprintln(os.Stderr, c.red("error:"), err)
	}
	if cmd.Annotations[errorStatusKey] == "2" {
		return 2
	}
	return 1
}

// exitStatus is the answer of a command that was carried out, where it is not 0.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// errSaid is an error whose message was printed.
var errSaid = errors.New("said already")
