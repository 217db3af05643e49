package controller

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/sockns/sockns/compiler"
	"github.com/sockns/sockns/model"
	"github.com/sockns/sockns/sockdiag"
)

// Revoke closes the open connections and the listeners that a policy refuses
// (SOCK_DESTROY) and returns what was closed. What the kernel can't close
// stays: see [RefusedSocket.Closable].
func (h *Host) Revoke(p *model.Policy, f compiler.Facts) ([]RefusedSocket, error) {
	var closed []RefusedSocket
	var errs []error
	err := h.eachRefused(p, f, func(r RefusedSocket, conn *sockdiag.Conn) error {
		if !r.Closable() {
			return nil
		}
		err := conn.Destroy(r.Socket)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it went with its other end
		case err != nil:
			errs = append(errs, fmt.Errorf("close %s: %w", r, err))
		default:
			closed = append(closed, r)
		}
		return nil
	})
	return closed, errors.Join(append(errs, err)...)
}
