package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// SocketPath returns where the API of the controller of a runtime directory
// listens.
func SocketPath(dir string) string { return filepath.Join(dir, "api.sock") }

// Listen makes the socket in a runtime directory, in the place of what a
// controller that died has left. The caller holds the lock of the directory.
func Listen(dir string) (net.Listener, error) {
	path := SocketPath(dir)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("API: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("API: %w", err)
	}
	// Whoever connects before this is told apart by its credentials.
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("API: %w", err)
	}
	return l, nil
}

// Serve answers requests that come in from a listener until ctx is done;
// streams end then. On a Unix socket it serves root and its own user alone.
func Serve(ctx context.Context, l net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler:           permitted(handler),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withPeer,
	}
	stop := context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
	})
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("API: %w", err)
	}
	return nil
}

// peerKey is the key of a connection's peer among the values of a context.
type peerKey struct{}

// peer is who is at the other end of a Unix socket (SO_PEERCRED, unix(7)).
type peer struct {
	cred *unix.Ucred
	err  error
}

func withPeer(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	var p peer
	raw, err := u.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			p.cred, p.err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		})
	}
	if err != nil {
		p.err = err
	}
	return context.WithValue(ctx, peerKey{}, p)
}

// permitted refuses peers of other users.
func permitted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p, ok := r.Context().Value(peerKey{}).(peer); ok && !p.may(os.Geteuid()) {
			answer(w, http.StatusForbidden, failure{"only root may ask"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (p peer) may(own int) bool {
	return p.err == nil && (p.cred.Uid == 0 || int(p.cred.Uid) == own)
}
