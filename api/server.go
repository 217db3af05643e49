// Package api is the interface of a running controller: HTTP with JSON over a
// Unix socket, for root alone, and its client.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/events"
)

// Controller is whom the API asks. Its methods are safe for concurrent use.
type Controller interface {
	State(context.Context) (*controller.State, error)
	Reload(context.Context) (*controller.Broken, error)
	Why(context.Context, string) (*controller.Why, error)
	Refusals(context.Context) (*controller.Refusals, error)
}

// Server answers the requests of the API.
type Server struct {
	Controller Controller
	Events     *events.Hub
	Metrics    http.Handler

	streams chan struct{} // one entry for each stream of events
}

// Limits of what others can have the controller do.
const (
	mostStreams   = 64
	streamBuffer  = 4096             // events that wait for one listener
	writeTimeout  = 30 * time.Second // of one answer, or one event
	healthTimeout = 2 * time.Second
)

// Health is the answer of /v1/health.
type Health struct {
	// Status is ok, degraded (it enforces, but something needs a hand) or
	// failing (the kernel may differ from the policy).
	Status  string   `json:"status"`
	Reasons []string `json:"reasons,omitempty"`
}

// failure is the answer to a request that failed.
type failure struct {
	Error string `json:"error"`
}

// Handler returns the routes of the API.
func (s *Server) Handler() http.Handler {
	s.streams = make(chan struct{}, mostStreams)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/state", s.state)
	mux.HandleFunc("GET /v1/events", s.events)
	mux.HandleFunc("GET /v1/why/{subject...}", s.why)
	mux.HandleFunc("GET /v1/refusals", s.refusals)
	mux.HandleFunc("POST /v1/reload", s.reload)
	mux.HandleFunc("GET /v1/health", s.health)
	mux.Handle("GET /metrics", s.Metrics)
	return mux
}

// MetricsOnly returns the routes of a port that everybody can reach.
func MetricsOnly(metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	return mux
}

func (s *Server) state(w http.ResponseWriter, r *http.Request) {
	state, err := s.Controller.State(r.Context())
	if err != nil {
		answer(w, http.StatusServiceUnavailable, failure{err.Error()})
		return
	}
	answer(w, http.StatusOK, state)
}

func (s *Server) refusals(w http.ResponseWriter, r *http.Request) {
	refusals, err := s.Controller.Refusals(r.Context())
	if err != nil {
		answer(w, http.StatusServiceUnavailable, failure{err.Error()})
		return
	}
	answer(w, http.StatusOK, refusals)
}

// why answers about a socket namespace, an instance or a process's number.
func (s *Server) why(w http.ResponseWriter, r *http.Request) {
	why, err := s.Controller.Why(r.Context(), r.PathValue("subject"))
	var unknown controller.ErrUnknown
	switch {
	case errors.As(err, &unknown):
		answer(w, http.StatusNotFound, failure{err.Error()})
	case err != nil:
		answer(w, http.StatusServiceUnavailable, failure{err.Error()})
	default:
		answer(w, http.StatusOK, why)
	}
}

// reload answers with 200 if the files' policy is in force now, and with 422
// and what is wrong with it otherwise.
func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	broken, err := s.Controller.Reload(r.Context())
	switch {
	case broken != nil:
		answer(w, http.StatusUnprocessableEntity, broken)
	case err != nil:
		answer(w, http.StatusServiceUnavailable, failure{err.Error()})
	default:
		answer(w, http.StatusOK, struct{}{})
	}
}

func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	h := healthOf(s.Controller.State(ctx))
	status := http.StatusOK
	if h.Status == "failing" {
		status = http.StatusServiceUnavailable
	}
	answer(w, status, h)
}

func healthOf(state *controller.State, err error) Health {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return Health{"failing", []string{"the controller does not answer: it starts, or is busy"}}
	case err != nil:
		return Health{"failing", []string{err.Error()}}
	case state.Failing != nil:
		return Health{"failing", []string{state.Failing.Error}}
	}
	h := Health{Status: "ok"}
	if b := state.Policy.Broken; b != nil {
		h.Status = "degraded"
		h.Reasons = append(h.Reasons, "the policy files are broken, the last good policy is in force: "+b.String())
	}
	return h
}

// events streams events as lines of JSON until the client goes. The query's
// kind names those that are wanted, separated by commas or repeated.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	kinds, err := kindsOf(r.URL.Query()["kind"])
	if err != nil {
		answer(w, http.StatusBadRequest, failure{err.Error()})
		return
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		answer(w, http.StatusServiceUnavailable, failure{fmt.Sprintf("%d streams are open, which is the limit", mostStreams)})
		return
	}
	sub := s.Events.Subscribe(streamBuffer, kinds...)
	defer sub.Close()
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	lines := json.NewEncoder(w)
	lines.SetEscapeHTML(false)
	if out.Flush() != nil {
		return
	}
	for {
		e, err := sub.Next(r.Context())
		if err != nil {
			return
		}
		_ = out.SetWriteDeadline(time.Now().Add(writeTimeout))
		if lines.Encode(e) != nil || out.Flush() != nil {
			return
		}
	}
}

// kindsOf reads the kinds of a query; nil is all.
func kindsOf(query []string) ([]events.Kind, error) {
	var kinds []events.Kind
	for _, word := range strings.FieldsFunc(strings.Join(query, ","), func(c rune) bool { return c == ',' }) {
		k := events.Kind(word)
		if !slices.Contains(events.Kinds, k) {
			return nil, fmt.Errorf("kind %q: allowed are %v", word, events.Kinds)
		}
		kinds = append(kinds, k)
	}
	return kinds, nil
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // the client has gone
}
