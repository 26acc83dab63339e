package agent

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/client"
	"github.com/banger-vm/banger/internal/guest/control"
	"github.com/banger-vm/banger/internal/guest/link"
)

// The test binary also runs as the guest program that copies files, and as the
// ProxyCommand of ssh(1).
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "sftp" {
		exitWith(SFTP())
	}
	if len(os.Args) > 2 && os.Args[1] == "archive" {
		exitWith(Archive(os.Args[2]))
	}
	if len(os.Args) > 2 && os.Args[1] == "proxy" {
		exitWith(proxy(os.Args[2]))
	}
	os.Exit(m.Run())
}

func exitWith(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func proxy(socket string) error {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	go func() {
		ignore(io.Copy(c, os.Stdin))
		closeQuietly(c)
	}()
	_, err = io.Copy(os.Stdout, c)
	return err
}

// A machine is an agent that runs as the current user in this process, with
// stand-ins for process 1 and the host.
type machine struct {
	keys         client.Keys
	session      *link.Session
	boot         *os.File // process 1's end of the control sockets
	errs         chan error
	initRequests chan time.Duration // the grace of each call of AskInit
}

func newMachine(t *testing.T, change func(*Options)) *machine {
	t.Helper()
	keys, err := client.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	boot, theirs, err := control.Pair()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{keys: keys, boot: boot, errs: make(chan error, 1), initRequests: make(chan time.Duration, 1)}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	opts := Options{
		Config: guest.Config{
			Version: guest.Version, Init: guest.InitBanger,
			HostKey: keys.HostPrivate, ClientKeys: []string{keys.ClientPublic},
		},
		Control: theirs, Sysroot: "/", Program: exe,
		AskInit: func(_ context.Context, grace time.Duration) error { m.initRequests <- grace; return nil },
	}
	if change != nil {
		change(&opts)
	}
	a, err := newAgent(opts)
	if err != nil {
		t.Fatal(err)
	}
	guestEnd, hostEnd := socketPair(t)
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { a.receiveControl(ctx) })
	all.Go(func() { m.errs <- a.serve(ctx, guestEnd) })
	t.Cleanup(func() {
		cancel()
		all.Wait()
		a.tasks.Wait()
		boot.Close()
		theirs.Close()
	})
	if m.session, err = link.Connect(testContext(t), hostEnd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeQuietly(m.session) })
	return m
}

// readyMachine returns a machine whose root file system is in place.
func readyMachine(t *testing.T) *machine {
	t.Helper()
	m := newMachine(t, nil)
	m.rootReady(t)
	return m
}

func (m *machine) rootReady(t *testing.T) {
	t.Helper()
	if err := control.Send(m.boot, control.Message{Root: true, Notes: []string{"a note"}}); err != nil {
		t.Fatal(err)
	}
	if msg := m.receive(t); !msg.Rooted {
		t.Fatalf("process 1 received %+v, want Rooted", msg)
	}
}

func (m *machine) receive(t *testing.T) control.Message {
	t.Helper()
	if err := m.boot.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	msg, err := control.Receive(m.boot)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func (m *machine) stream(t *testing.T) net.Conn {
	t.Helper()
	stream, err := m.session.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func (m *machine) client(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New(testContext(t), m.stream(t), m.keys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeQuietly(c) })
	return c
}

// sshSocket listens on a Unix socket and forwards its connections to the agent.
func (m *machine) sshSocket(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ssh.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer closeQuietly(c)
				stream, err := m.session.Open(context.Background())
				if err != nil {
					return
				}
				go func() {
					ignore(io.Copy(stream, c))
					closeQuietly(stream)
				}()
				ignore(io.Copy(c, stream))
			})
		}
	})
	t.Cleanup(func() {
		closeQuietly(l)
		closeQuietly(m.session)
		all.Wait()
	})
	return path
}

func socketPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer closeQuietly(l)
	if a, err = net.Dial("unix", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeQuietly(a); closeQuietly(b) })
	return a, b
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// ignore discards results that the test checks in another way.
func ignore(...any) {}

// closeQuietly closes a connection or file whose Close error does not matter.
func closeQuietly(c io.Closer) { c.Close() }
