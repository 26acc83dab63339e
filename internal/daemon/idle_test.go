package daemon

import (
	"errors"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/machine/record"
)

func TestIdleDaemonEnds(t *testing.T) {
	f := newFakeMachines(t)
	f.add(idOne, "one", record.StateRunning)
	d := startDaemon(t, f, func(c *Config) { c.Idle = 20 * time.Millisecond })
	waiting := make(chan error, 1)
	go func() {
		_, err := d.Wait(t.Context(), "one")
		waiting <- err
	}()
	// The wait request may come too late: then the daemon has ended.
	select {
	case err := <-waiting:
		if !errors.Is(err, api.ErrUnreachable) {
			t.Fatalf("wait ended early: %v", err)
		}
	case <-time.After(200 * time.Millisecond):
		select {
		case err := <-d.ended:
			t.Fatalf("the daemon ended while a client waits: %v", err)
		default:
		}
		f.endSupervisor(idOne)
		if err := <-waiting; err != nil {
			t.Fatal(err)
		}
	}
	if err := <-d.ended; err != nil {
		t.Error(err)
	}
}

func TestActiveTimerDoesNotExpire(t *testing.T) {
	c := newIdleTimer(time.Hour)
	c.begin()
	c.expire() // the timer may call it after begin has stopped it
	select {
	case <-c.expired:
		t.Error("the timer expired during an activity")
	default:
	}
	c.end()
	c.expire()
	c.expire()
	<-c.expired
}
