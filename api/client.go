package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/events"
)

// Client asks the controller of a runtime directory. Its methods are safe for
// concurrent use.
type Client struct {
	http http.Client
}

// ErrNotRunning says that no controller runs whom one could ask.
var ErrNotRunning = errors.New("no controller runs here: start it with `sockns run`, or `systemctl start sockns`")

// NewClient returns a client. Nothing is connected yet.
func NewClient(dir string) *Client {
	path := SocketPath(dir)
	return &Client{http: http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
		DisableKeepAlives: true,
	}}}
}

// State returns the state of the controller.
func (c *Client) State(ctx context.Context) (*controller.State, error) {
	state := new(controller.State)
	if err := c.get(ctx, "/v1/state", state); err != nil {
		return nil, err
	}
	return state, nil
}

// Refusals returns what was refused since the controller was started.
func (c *Client) Refusals(ctx context.Context) (*controller.Refusals, error) {
	refusals := new(controller.Refusals)
	if err := c.get(ctx, "/v1/refusals", refusals); err != nil {
		return nil, err
	}
	return refusals, nil
}

// get decodes an answer that is there unless something fails.
func (c *Client) get(ctx context.Context, path string, into any) error {
	resp, err := c.do(ctx, http.MethodGet, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return failed(resp)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// Why returns the last refusals of a socket namespace, an instance of a
// template, or a process by its number; the error is a
// [controller.ErrUnknown] if there is none.
func (c *Client) Why(ctx context.Context, subject string) (*controller.Why, error) {
	resp, err := c.do(ctx, http.MethodGet, "/v1/why/"+(&url.URL{Path: subject}).EscapedPath())
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var f failure
	if resp.StatusCode == http.StatusNotFound && json.NewDecoder(resp.Body).Decode(&f) == nil {
		return nil, controller.ErrUnknown(f.Error)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, failed(resp)
	}
	why := new(controller.Why)
	return why, json.NewDecoder(resp.Body).Decode(why)
}

// Health returns the controller's health, whatever it is.
func (c *Client) Health(ctx context.Context) (*Health, error) {
	resp, err := c.do(ctx, http.MethodGet, "/v1/health")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusServiceUnavailable {
		return nil, failed(resp)
	}
	h := new(Health)
	return h, json.NewDecoder(resp.Body).Decode(h)
}

// Reload has the controller read its files again and waits until their policy
// is in force. It returns what is wrong with them, nil if nothing is.
func (c *Client) Reload(ctx context.Context) (*controller.Broken, error) {
	resp, err := c.do(ctx, http.MethodPost, "/v1/reload")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return nil, nil
	case http.StatusUnprocessableEntity:
		b := new(controller.Broken)
		return b, json.NewDecoder(resp.Body).Decode(b)
	}
	return nil, failed(resp)
}

// Events calls begun once the controller listens to it, if it is not nil, and
// fn with each event of some kinds (of all, if none is named) from then on,
// until ctx is done or fn returns an error, which it returns. If the controller
// ends, the error is io.EOF.
func (c *Client) Events(ctx context.Context, kinds []events.Kind, begun func(), fn func(events.Event) error) error {
	query := url.Values{}
	for _, k := range kinds {
		query.Add("kind", string(k))
	}
	resp, err := c.do(ctx, http.MethodGet, "/v1/events?"+query.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return failed(resp)
	}
	if begun != nil {
		begun()
	}
	lines := json.NewDecoder(resp.Body)
	for {
		var e events.Event
		if err := lines.Decode(&e); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if errors.Is(err, io.ErrUnexpectedEOF) {
				return io.EOF // it was killed
			}
			return err
		}
		if err := fn(e); err != nil {
			return err
		}
	}
}

func (c *Client) do(ctx context.Context, method, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://sockns"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return nil, ErrNotRunning
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, fmt.Errorf("ask the controller: %w", err)
	}
	return resp, nil
}

// failed returns the error that an answer holds.
func failed(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var f failure
	if json.Unmarshal(text, &f) != nil || f.Error == "" {
		f.Error = string(bytes.TrimSpace(text))
	}
	return fmt.Errorf("the controller says: %s (%s)", f.Error, resp.Status)
}
