package watch

import (
	"os"
	"runtime"
	"testing"
	"time"
)

// checkLeaks fails the test if at its end there are more goroutines or
// descriptors than now.
func checkLeaks(t *testing.T) {
	t.Helper()
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	goroutines, files := runtime.NumGoroutine(), descriptors()
	t.Cleanup(func() {
		deadline := time.Now().Add(2 * time.Second)
		for runtime.NumGoroutine() > goroutines && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		if n := runtime.NumGoroutine(); n > goroutines {
			buf := make([]byte, 64<<10)
			t.Errorf("%d goroutines, were %d:\n%s", n, goroutines, buf[:runtime.Stack(buf, true)])
		}
		if n := descriptors(); n > files {
			t.Errorf("%d descriptors, were %d", n, files)
		}
	})
}
