package poll

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestUntilCallsAtTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin, calls := time.Now(), 0
		err := Until(t.Context(), time.Second, func() (bool, error) {
			calls++
			return calls == 4, nil
		})
		if err != nil || calls != 4 || time.Since(begin) != 3*time.Second {
			t.Errorf("error %v, %d calls in %v; want 4 in 3s", err, calls, time.Since(begin))
		}
	})
}

func TestBackoffDoublesUpToTheLongestInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin, calls := time.Now(), 0
		err := Backoff(t.Context(), time.Second, 3*time.Second, func() (bool, error) {
			calls++
			return calls == 5, nil
		})
		if want := (1 + 2 + 3 + 3) * time.Second; err != nil || time.Since(begin) != want {
			t.Errorf("error %v after %v, want none after %v", err, time.Since(begin), want)
		}
	})
}

func TestUntilReturnsTheErrorOfDone(t *testing.T) {
	want := errors.New("broken")
	calls := 0
	err := Until(t.Context(), time.Hour, func() (bool, error) {
		calls++
		return false, want
	})
	if !errors.Is(err, want) || calls != 1 {
		t.Errorf("error %v after %d calls, want %v after 1", err, calls, want)
	}
}

func TestUntilReturnsTheCauseOfTheContext(t *testing.T) {
	want := errors.New("process ended")
	ctx, cancel := context.WithCancelCause(t.Context())
	err := Until(ctx, time.Hour, func() (bool, error) {
		cancel(want)
		return false, nil
	})
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func TestUntilAsksOnceWhenTheContextHasEnded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Until(ctx, time.Hour, func() (bool, error) { return true, nil }); err != nil {
		t.Errorf("error %v of a condition that holds, want none", err)
	}
}
