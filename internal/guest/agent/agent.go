// Package agent is the SSH server inside a machine. The host reaches it
// through a virtio-serial port, so that it needs no network, no sshd and no
// account; it runs what it is asked to as the users of the image, and tells
// process 1 when the main command has ended. It lets in nobody but the holder
// of a key of guest.Config, and bounds how much one may ask for at a time; it
// does not confine whoever has the key, who may be root.
//
// A process without a terminal gets a signal by itself, as with docker; one
// with a terminal gets it with its group and the terminal's foreground group.
// When a channel is closed before its process has ended, the process's group
// gets SIGHUP and after a while SIGKILL. The main command is spared: a host
// may come back to a machine whose connection broke, or was restored.
// After a process has ended its output is carried to the last byte; what
// children that it left behind write is waited for a moment, and is then
// thrown away, without their noticing.
package agent

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/control"
	"github.com/banger-vm/banger/internal/guest/link"
)

// Options are what the agent is started with. The defaults are right inside
// a machine.
type Options struct {
	// Config is the machine's.
	Config guest.Config
	// Control is the agent's end of the control sockets.
	Control *os.File
	// AskInit asks an init that is not banger's to end the machine, and ends
	// it itself after grace.
	AskInit func(ctx context.Context, grace time.Duration) error
	// Sysroot is where the root file system appears; "/" means that the
	// agent is in it already. "" is control.Sysroot.
	Sysroot string
	// Ports is the folder that lists the virtio ports, Devices the one with
	// their devices. "" is /sys/class/virtio-ports and /dev.
	Ports, Devices string
	// Program is run with the argument sftp for the sftp subsystem, and with
	// archive and a guest.Archive to copy files. "" is /proc/self/exe.
	Program string
}

// Run serves the host until ctx ends or the port fails.
func Run(ctx context.Context, opts Options) error {
	a, err := newAgent(opts)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer a.tasks.Wait()
	defer cancel()
	a.tasks.Go(func() { a.follow(ctx) })
	p, err := openPort(ctx, a.opts.Ports, a.opts.Devices)
	if err != nil {
		return err
	}
	return a.serve(ctx, p)
}

// An agent is one Run.
type agent struct {
	opts   Options
	config guest.Config
	server *ssh.ServerConfig
	root   root
	main   mainCommand
	tasks  sync.WaitGroup // what outlives a connection
	places chan struct{}  // one for each connection
}

func newAgent(opts Options) (*agent, error) {
	if opts.Config.Version != guest.Version {
		return nil, fmt.Errorf("start agent: configuration of version %d, this program knows %d", opts.Config.Version, guest.Version)
	}
	opts.Sysroot = orDefault(opts.Sysroot, control.Sysroot)
	opts.Ports = orDefault(opts.Ports, "/sys/class/virtio-ports")
	opts.Devices = orDefault(opts.Devices, "/dev")
	opts.Program = orDefault(opts.Program, "/proc/self/exe")
	server, err := serverConfig(&opts.Config)
	if err != nil {
		return nil, err
	}
	return &agent{
		opts: opts, config: opts.Config, server: server,
		root:   root{ready: make(chan struct{})},
		places: make(chan struct{}, maxConnections),
	}, nil
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// serve owns port.
func (a *agent) serve(ctx context.Context, port io.ReadWriteCloser) error {
	l := link.Listen(port)
	defer l.Close() //nolint:errcheck // nothing is left to be lost
	var sessions sync.WaitGroup
	defer sessions.Wait()
	for {
		s, err := l.Accept(ctx)
		if err != nil {
			l.Close() //nolint:errcheck // likewise; it ends the sessions
			return err
		}
		sessions.Go(func() { a.serveSession(ctx, s) })
	}
}

func (a *agent) serveSession(ctx context.Context, s *link.Session) {
	defer s.Close()
	var all sync.WaitGroup
	defer all.Wait()
	for {
		stream, err := s.Accept()
		if err != nil {
			return // the session has ended
		}
		select {
		case a.places <- struct{}{}:
			all.Go(func() {
				defer func() { <-a.places }()
				a.serveConn(ctx, stream)
			})
		default:
			stream.Close()
		}
	}
}
