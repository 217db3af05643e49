package controller

import "time"

// backoff spaces attempts after errors.
type backoff struct {
	timer *time.Timer
	delay time.Duration
}

const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = 30 * time.Second
)

func newBackoff() *backoff {
	b := &backoff{timer: time.NewTimer(time.Hour), delay: firstRetry}
	b.timer.Stop()
	return b
}

func (b *backoff) C() <-chan time.Time { return b.timer.C }

// next starts the timer and returns its delay.
func (b *backoff) next() time.Duration {
	d := b.delay
	b.timer.Reset(d)
	b.delay = min(2*b.delay, lastRetry)
	return d
}

func (b *backoff) reset() {
	b.timer.Stop()
	b.delay = firstRetry
}

func (b *backoff) stop() { b.timer.Stop() }
