package events

import (
	"context"
	"log/slog"
	"time"
)

// Level is how much the event matters in a log. Members come and go all day,
// and decisions are as many as packets: they are for those who look closely.
func (e *Event) Level() slog.Level {
	switch e.Kind {
	case Failed, PolicyBroken, ResyncFound, Restored:
		return slog.LevelError
	case DriftRepaired, TierRepaired, ConfirmWaiting, Degraded, Lost:
		return slog.LevelWarn
	case MemberJoined, MemberLeft, Decision:
		return slog.LevelDebug
	case Reconciled:
		if !e.Changed {
			return slog.LevelDebug
		}
	}
	return slog.LevelInfo
}

// LogTo writes the event to a log: one record, and one more for each step and
// problem, so that each stands on a line of its own.
func (e *Event) LogTo(l *slog.Logger) {
	level, ctx := e.Level(), context.Background()
	if !l.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 8)
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	add("message", e.Message)
	add("device", e.Device)
	add("namespace", e.Namespace)
	add("cgroup", e.Cgroup)
	add("error", e.Error)
	if e.Took > 0 {
		attrs = append(attrs, slog.Duration("took", time.Duration(e.Took*float64(time.Second))))
	}
	if e.Lost > 0 {
		attrs = append(attrs, slog.Uint64("lost", e.Lost))
	}
	if len(e.By) == 1 {
		attrs = append(attrs, e.By[0].attr("by"))
	}
	l.LogAttrs(ctx, level, string(e.Kind), attrs...)
	if len(e.By) > 1 {
		for _, a := range e.By {
			l.LogAttrs(ctx, level, string(e.Kind)+": also", a.attr("by"))
		}
	}
	for _, s := range e.Steps {
		l.LogAttrs(ctx, level, string(e.Kind)+": step", slog.String("what", string(s.Op)+" "+s.String()), slog.String("device", e.Device))
	}
	if e.MoreSteps > 0 {
		l.LogAttrs(ctx, level, string(e.Kind)+": more steps", slog.Int("steps", e.MoreSteps), slog.String("device", e.Device))
	}
	for _, p := range e.Problems {
		l.LogAttrs(ctx, level, string(e.Kind)+": problem", slog.String("what", p.String()))
	}
}

func (a Actor) attr(key string) slog.Attr {
	attrs := []any{slog.Uint64("pid", uint64(a.PID)), slog.String("process", a.Process)}
	if a.Unit != "" {
		attrs = append(attrs, slog.String("unit", a.Unit))
	} else if a.Cgroup != "" {
		attrs = append(attrs, slog.String("cgroup", a.Cgroup))
	}
	if len(a.Did) > 0 {
		attrs = append(attrs, slog.Any("did", a.Did))
	}
	return slog.Group(key, attrs...)
}
