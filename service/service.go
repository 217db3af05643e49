// Package service is the controller as a long-running process: it owns the
// host's policy, answers the API, has metrics, and talks to systemd.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockns/sockns/api"
	"github.com/sockns/sockns/controller"
	"github.com/sockns/sockns/events"
	"github.com/sockns/sockns/metrics"
)

// Options are what a service can be told.
type Options struct {
	Paths   []string      // policy files and directories
	Resync  time.Duration // 0: [controller.DefaultResync]
	Confirm time.Duration // see [controller.Options]
	Guard   func() error  // see [controller.Options]
	Log     *slog.Logger
	Version string
	// MetricsListen is a loopback address and port where metrics can be had
	// too, by anybody on the machine; empty: on the API's socket alone.
	MetricsListen string
}

// service is what runs.
type service struct {
	log        *slog.Logger
	hub        events.Hub
	reconciler *controller.Reconciler
	metrics    *metrics.Metrics
	systemd    *notifier
	tidier     *tidier

	mu       sync.Mutex
	observer *controller.Host // reads counters, apart from the reconciler; under mu
}

// Run owns the policy of the host until ctx is done, and leaves it in force.
// The error is [controller.ErrOwned] if another controller has it.
func Run(ctx context.Context, o Options) error {
	listenMetrics, err := loopback(o.MetricsListen)
	if err != nil {
		return err
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, unix.SIGHUP)
	defer signal.Stop(hangups)
	dir := controller.RuntimeDir()
	lock, err := controller.Acquire(ctx, dir, controller.RoleController, func(holder string) {
		o.Log.Info("waiting", "for", holder)
	})
	if err != nil {
		return err
	}
	defer lock.Release()
	host, err := controller.OpenHost()
	if err != nil {
		return err
	}
	defer host.Close()
	observer, err := controller.OpenHost()
	if err != nil {
		return err
	}
	defer observer.Close()
	observer.ShareFigures(host)
	s := &service{log: o.Log, observer: observer, systemd: newNotifier(o.Log), tidier: newTidier()}
	defer s.tidier.stop()
	s.metrics = metrics.New(s, o.Version)
	s.reconciler = controller.NewReconciler(host, controller.Options{
		Paths: o.Paths, Resync: o.Resync, Tell: s.tell, Begin: s.tidier.begin, Confirm: o.Confirm, RuntimeDir: dir, Guard: o.Guard,
	})

	// What serves outlives the reconciler, whose last event is heard of.
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	serving, quit := context.WithCancel(context.WithoutCancel(ctx))
	var work sync.WaitGroup
	defer work.Wait()
	defer quit()
	failed := make(chan error, 2)
	serve := func(l net.Listener, handler http.Handler) {
		work.Go(func() {
			if err := api.Serve(serving, l, handler); err != nil {
				failed <- err
				stop()
			}
		})
	}
	socket, err := api.Listen(dir)
	if err != nil {
		return err
	}
	serve(socket, (&api.Server{Controller: s, Events: &s.hub, Metrics: s.metrics.Handler()}).Handler())
	if listenMetrics != "" {
		l, err := net.Listen("tcp", listenMetrics)
		if err != nil {
			return fmt.Errorf("--metrics-listen: %w", err)
		}
		o.Log.Info("metrics", "at", "http://"+l.Addr().String()+"/metrics")
		serve(l, api.MetricsOnly(s.metrics.Handler()))
	}
	work.Go(func() { s.reloadOn(serving, hangups) })
	work.Go(func() { s.systemd.watchdog(serving, s.alive) })
	work.Go(func() { s.rememberCounters(serving) })

	err = s.reconciler.Run(ctx)
	select {
	case why := <-failed:
		err = errors.Join(err, why)
	default:
	}
	return err
}

// loopback checks an address to listen on.
func loopback(address string) (string, error) {
	if address == "" {
		return "", nil
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil || !at.Addr().IsLoopback() {
		return "", fmt.Errorf("--metrics-listen %s: metrics tell who talks to whom, so only a loopback address and a port are allowed, as 127.0.0.1:9469 or [::1]:9469", address)
	}
	return address, nil
}

// tell hands an event to all who want to know.
func (s *service) tell(e events.Event) {
	e.LogTo(s.log)
	s.metrics.Observe(e)
	s.systemd.observe(e)
	s.tidier.observe(e)
	s.hub.Publish(e)
}

// State asks the reconciler.
func (s *service) State(ctx context.Context) (*controller.State, error) {
	return s.reconciler.State(ctx)
}

// Why asks the reconciler for what was refused lately.
func (s *service) Why(ctx context.Context, subject string) (*controller.Why, error) {
	return s.reconciler.Why(ctx, subject)
}

// Refusals asks the reconciler for all that was refused.
func (s *service) Refusals(ctx context.Context) (*controller.Refusals, error) {
	return s.reconciler.Refusals(ctx)
}

// Reload has the reconciler read its files again, and tells systemd.
func (s *service) Reload(ctx context.Context) (*controller.Broken, error) {
	s.systemd.reloading()
	defer s.systemd.ready()
	return s.reconciler.Reload(ctx)
}

// Counts reads the counters of the rules.
func (s *service) Counts(devices []controller.DeviceState) ([]controller.DeviceCounts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.hasRead(time.Now())
	return s.observer.Counts(devices)
}

// hasRead has what a long reading left behind given back.
func (s *service) hasRead(began time.Time) {
	if time.Since(began) > rememberInterval/rememberShare {
		s.tidier.soon()
	}
}

// noteCounts reads the counters for what the observer remembers of them.
func (s *service) noteCounts(devices []controller.DeviceState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.hasRead(time.Now())
	_ = s.observer.NoteCounts(devices) // what can't be read is told by metrics and status
}

const (
	// rememberInterval is how often the counters are read, so that tables that
	// somebody removes come back with them; rememberShare bounds the time that
	// it takes where reading takes long.
	rememberInterval = 10 * time.Second
	rememberShare    = 200
)

// rememberCounters reads the counters now and then.
func (s *service) rememberCounters(ctx context.Context) {
	next := time.NewTimer(rememberInterval)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		began := time.Now()
		if devices, err := s.reconciler.Devices(ctx); err == nil {
			began = time.Now()
			s.noteCounts(devices)
		}
		next.Reset(max(rememberInterval, rememberShare*time.Since(began)))
	}
}

// alive asks the reconciler for a sign of life.
func (s *service) alive(ctx context.Context) error {
	_, err := s.reconciler.Devices(ctx)
	return err
}

// reloadOn reloads at each hangup.
func (s *service) reloadOn(ctx context.Context, hangups <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			if _, err := s.Reload(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("could not reload", "error", err)
			}
		}
	}
}
