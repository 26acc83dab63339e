package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/banger-vm/banger/internal/base/poll"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/agent"
	"github.com/banger-vm/banger/internal/guest/control"
)

// The descriptors of the guest's process, in the order of startGuest.
const (
	consoleFD = iota + 3
	agentFD
	initrdFD
)

// runGuest runs the process that stands for the guest. All processes that it starts end with it.
func runGuest() error {
	for _, fd := range []int{consoleFD, agentFD, initrdFD} {
		unix.CloseOnExec(fd)
	}
	console := os.NewFile(consoleFD, "console")
	err := liveGuest(console)
	if err != nil {
		fmt.Fprintf(console, "%s%v\r\n", guest.ErrorPrefix, err)
	}
	return err
}

func liveGuest(console io.Writer) error {
	fmt.Fprint(console, "Linux version 9.9.9 (stub)\r\n")
	if slices.Contains(os.Args[1:], guest.ProbeWord) {
		_, err := fmt.Fprint(console, guest.ProbeAnswer+"\r\n")
		return err
	}
	config, err := readConfig(os.NewFile(initrdFD, "initrd"))
	if err != nil {
		return err
	}
	if len(config.HostKey) == 0 {
		return errors.New("configuration without a key")
	}
	port, err := openPort()
	if err != nil {
		return err
	}
	boot, theirs, err := control.Pair()
	if err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() {
		ended <- agent.Run(context.Background(), agent.Options{
			Config: *config, Control: theirs, Sysroot: "/",
			Ports: filepath.Join(portDir, "ports"), Devices: portDir,
			AskInit: func(context.Context, time.Duration) error { return syscall.Kill(os.Getpid(), syscall.SIGTERM) },
		})
	}()
	go func() { ended <- connectPort(port) }()
	go func() { ended <- process1(boot) }()
	fmt.Fprintf(console, "%sstub, init %s, ready\r\n", guest.NotePrefix, config.Init)
	button := make(chan os.Signal, 1)
	signal.Notify(button, syscall.SIGTERM)
	select {
	case <-button:
		return nil
	case err := <-ended:
		return err
	}
}

// process1 sends the agent the messages of a machine's process 1, and returns when the agent requests the end.
func process1(boot *os.File) error {
	if err := control.Send(boot, control.Message{Root: true, Notes: []string{"stub"}}); err != nil {
		return err
	}
	for {
		msg, err := control.Receive(boot)
		if err != nil {
			return err
		}
		if msg.MainEnded {
			return nil
		}
		if msg.PowerOff != nil {
			terminate(time.Duration(*msg.PowerOff) * time.Millisecond)
			return nil
		}
	}
}

// terminate sends SIGTERM to the guest's processes and waits for their end, at most for grace. The signal does not
// reach this process, which is process 1 of its namespace.
func terminate(grace time.Duration) {
	_ = unix.Kill(-1, syscall.SIGTERM) // ESRCH: there are none, and Wait4 returns ECHILD
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	_ = poll.Until(ctx, 5*time.Millisecond, func() (bool, error) { // an error: grace has passed
		var status unix.WaitStatus
		_, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		return errors.Is(err, unix.ECHILD), nil
	})
}

// portDir is the folder that the agent searches for its port. It is a mount in the guest's mount namespace, so a guest
// that is killed leaves nothing.
const portDir = "/dev/shm"

// openPort creates a terminal in raw mode that the agent opens as its virtio port, since that must be a file with a
// name. It returns the other end.
func openPort() (*os.File, error) {
	end, peer, err := pty.Open()
	if err != nil {
		return nil, fmt.Errorf("make port: %w", err)
	}
	if _, err := term.MakeRaw(int(peer.Fd())); err != nil {
		return nil, fmt.Errorf("make port: %w", err)
	}
	entry := filepath.Join(portDir, "ports", "port")
	err = errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("proc", "/proc", "proc", 0, ""),
		unix.Mount("tmpfs", portDir, "tmpfs", 0, "mode=700"),
		os.MkdirAll(entry, 0o700),
		os.WriteFile(filepath.Join(entry, "name"), []byte(guest.AgentPort+"\n"), 0o600),
		os.Symlink(peer.Name(), filepath.Join(portDir, "port")),
	)
	if err != nil {
		return nil, fmt.Errorf("make port: %w", err)
	}
	return end, nil
}

// connectPort connects the port to the connections of the agent's socket, one after the other.
func connectPort(port *os.File) error {
	l, err := net.FileListener(os.NewFile(agentFD, "agent"))
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		relayed := make(chan struct{})
		go func() {
			defer close(relayed)
			_, _ = io.Copy(conn, port) // an error ends the connection; the supervisor may open another
		}()
		_, _ = io.Copy(port, conn)
		if err := port.SetReadDeadline(time.Unix(1, 0)); err != nil {
			return err
		}
		<-relayed
		conn.Close()
		if err := port.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
	}
}
