// Package agent is the SSH server inside a machine. The host reaches it through
// a virtio-serial port, so the machine needs no network, no sshd and no user
// account for it. The agent runs commands as the users of the image, and sends
// process 1 a message when the main command has ended. It accepts only the
// client keys of guest.Config, and limits how many connections and channels a
// client may have open. It does not confine a client with a key, which may be
// root.
//
// A process without a terminal gets a signal alone, as with docker. A process
// with a terminal gets it together with its process group and the terminal's
// foreground group. If a channel is closed before its process has ended, the
// process's group gets SIGHUP, and SIGKILL a while later. The main command is
// exempt: the host may reconnect to a machine after its connection broke or the
// machine was restored.
//
// After a process has ended, the agent sends all of its output. It waits a
// moment for the output of children that the process left behind; after that it
// reads and discards that output, so that the children do not block.
package agent

import (
	"cmp"
	"context"
	"errors"
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

// Options configure the agent. The defaults are right inside a machine.
type Options struct {
	// Config is the machine's configuration.
	Config guest.Config
	// Control is the agent's end of the control sockets.
	Control *os.File
	// AskInit asks the image's own init to end the machine, and ends the
	// machine itself if it still runs after grace.
	AskInit func(ctx context.Context, grace time.Duration) error
	// Sysroot is the mount point of the root file system. "/" means that the
	// agent is in the root file system already. "" is control.Sysroot.
	Sysroot string
	// Ports is the folder that lists the virtio ports, and Devices is the
	// folder of their devices. "" is /sys/class/virtio-ports and /dev.
	Ports, Devices string
	// Program is the guest program. The agent runs it with the argument sftp
	// for the sftp subsystem, and with archive and a guest.Archive to copy
	// files. "" is /proc/self/exe.
	Program string
}

// Run serves the host until ctx ends or the port fails.
func Run(ctx context.Context, opts Options) error {
	a, err := newAgent(opts)
	if err != nil {
		return err
	}
	if a.protect, err = protectAgent(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer a.tasks.Wait()
	defer cancel()
	a.tasks.Go(func() { a.receiveControl(ctx) })
	p, err := openPort(ctx, a.opts.Ports, a.opts.Devices)
	if err != nil {
		return err
	}
	return a.serve(ctx, p)
}

// An agent is the state of one Run.
type agent struct {
	opts    Options
	config  guest.Config
	server  *ssh.ServerConfig
	root    root
	main    mainCommand
	protect protector
	tasks   sync.WaitGroup // goroutines that may outlive a connection
	slots   chan struct{}  // holds one element for each open connection
}

func newAgent(opts Options) (*agent, error) {
	if opts.Config.Version != guest.Version {
		return nil, fmt.Errorf("start agent: the configuration has version %d, this guest program supports only %d", opts.Config.Version, guest.Version)
	}
	opts.Sysroot = cmp.Or(opts.Sysroot, control.Sysroot)
	opts.Ports = cmp.Or(opts.Ports, "/sys/class/virtio-ports")
	opts.Devices = cmp.Or(opts.Devices, "/dev")
	opts.Program = cmp.Or(opts.Program, "/proc/self/exe")
	server, err := serverConfig(&opts.Config)
	if err != nil {
		return nil, err
	}
	return &agent{
		opts: opts, config: opts.Config, server: server,
		root:  root{ready: make(chan struct{})},
		slots: make(chan struct{}, maxConnections),
	}, nil
}

// serve accepts links on port until it fails. It closes port.
func (a *agent) serve(ctx context.Context, port io.ReadWriteCloser) error {
	l := link.Listen(port)
	var sessions sync.WaitGroup
	defer sessions.Wait()
	for {
		s, err := l.Accept(ctx)
		if err != nil {
			return errors.Join(err, l.Close()) // Close ends the sessions
		}
		sessions.Go(func() { a.serveLink(ctx, s) })
	}
}

func (a *agent) serveLink(ctx context.Context, s *link.Session) {
	defer s.Close()
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		stream, err := s.Accept()
		if err != nil {
			return // the link has ended
		}
		select {
		case a.slots <- struct{}{}:
			conns.Go(func() {
				defer func() { <-a.slots }()
				a.serveConn(ctx, stream)
			})
		default:
			stream.Close()
		}
	}
}
