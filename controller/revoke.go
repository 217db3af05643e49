package controller

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/sockdiag"
)

// Revoke closes the open connections that a policy refuses (SOCK_DESTROY) and
// returns what was closed.
func (h *Host) Revoke(p *model.Policy, f compiler.Facts) ([]Connection, error) {
	var closed []Connection
	var errs []error
	err := h.eachRefused(p, f, func(c Connection, conn *sockdiag.Conn) error {
		err := conn.Destroy(c.Socket)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it went with its other end
		case err != nil:
			errs = append(errs, fmt.Errorf("close %s: %w", c.Socket, err))
		default:
			closed = append(closed, c)
		}
		return nil
	})
	return closed, errors.Join(append(errs, err)...)
}
