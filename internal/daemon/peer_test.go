package daemon

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/machine/record"
)

func TestTooManyConnections(t *testing.T) {
	f := newFakeMachines(t)
	f.add(idOne, "one", record.StateRunning)
	f.agent = func(c net.Conn) { _, _ = c.Write([]byte("x")) }
	d := startDaemon(t, f, func(c *Config) { c.Connections = 1 })
	held, err := d.Agent(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.List(t.Context(), api.ListRequest{}); codeOf(err) != api.CodeTooMany {
		t.Errorf("a second connection: %v", err)
	}
	closeConn(held)
	for { // the slot becomes free when the daemon notices the end of the connection
		_, err := d.List(t.Context(), api.ListRequest{})
		if err == nil {
			return
		}
		if codeOf(err) != api.CodeTooMany || t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

func TestAdmit(t *testing.T) {
	for _, row := range []struct {
		uid uint32
		own int
		ok  bool
	}{{1000, 1000, true}, {0, 1000, true}, {1001, 1000, false}, {1000, 0, false}} {
		if err := admit(&unix.Ucred{Uid: row.uid}, row.own); (err == nil) != row.ok {
			t.Errorf("user %d at a daemon of %d: %v", row.uid, row.own, err)
		}
	}
}
