// Package control carries messages between process 1 of a machine and its
// child, the agent, over a pair of sockets. Each message is one packet of one
// JSON object and a newline, so one read returns exactly one message. The
// package defines the messages; boot and agent act on them.
package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/guest"
)

// FD is the file descriptor of the agent's end in the agent's process.
const FD = 3

// MaxMessage is the maximum size of a message in bytes. It is below 208 KiB,
// the kernel's default for the send buffer of a socket (net.core.wmem_default).
const MaxMessage = 128 << 10

// A Message has exactly one field set, except that Notes may come with Root.
//
// Process 1 sends Config first. It sends Root when the root file system is
// mounted at Sysroot; the agent then changes its root to Sysroot and answers
// Rooted. It sends Fatal when the machine is about to end because of an error.
// Once the image's own init has replaced process 1, there is no reader or
// writer left at that end, and the agent reads io.EOF.
//
// The agent sends Rooted. It sends MainEnded when the main command has ended
// and its status was delivered or there is no client to deliver it to. It sends
// PowerOff when the host asked to end the machine and there is no main command
// to wait for.
type Message struct {
	Config *guest.Config `json:"config,omitempty"`
	Root   bool          `json:"root,omitempty"`
	Notes  []string      `json:"notes,omitempty"` // for guest.Status
	Fatal  string        `json:"fatal,omitempty"`

	Rooted    bool   `json:"rooted,omitempty"`
	MainEnded bool   `json:"mainEnded,omitempty"`
	PowerOff  *int64 `json:"powerOff,omitempty"` // milliseconds that processes get between SIGTERM and SIGKILL
}

// Sysroot is the mount point of the root file system until the root changes.
const Sysroot = "/sysroot"

// Pair returns the two ends of a new connection; the second is for the agent.
// Both are close-on-exec.
func Pair() (boot, agent *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make control sockets: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control"), nil
}

// Open returns the agent's end in the agent's process, which is descriptor FD,
// and the configuration, which is the first message.
func Open() (*os.File, *guest.Config, error) {
	unix.CloseOnExec(FD)
	// The runtime polls a descriptor only if it is non-blocking; else each read
	// occupies a thread.
	if err := unix.SetNonblock(FD, true); err != nil {
		return nil, nil, fmt.Errorf("open control socket: %w", err)
	}
	f := os.NewFile(FD, "control")
	m, err := Receive(f)
	if err == nil && m.Config == nil {
		err = errors.New("receive control message: the first is no configuration")
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, m.Config, nil
}

// Send sends one message. Several goroutines may call it at the same time.
func Send(f *os.File, m Message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("send control message: %w", err)
	}
	b = append(b, '\n')
	if len(b) > MaxMessage {
		return fmt.Errorf("send control message: %d bytes are more than %d", len(b), MaxMessage)
	}
	if _, err := f.Write(b); err != nil {
		return fmt.Errorf("send control message: %w", err)
	}
	return nil
}

// Receive waits for the next message. It returns io.EOF if the other end is
// closed.
func Receive(f *os.File) (Message, error) {
	var m Message
	b := make([]byte, MaxMessage+1) // one byte more, to detect a message that is too long
	n, err := f.Read(b)
	if err == io.EOF {
		return m, io.EOF
	}
	if err != nil {
		return m, fmt.Errorf("receive control message: %w", err)
	}
	if n > MaxMessage {
		return m, fmt.Errorf("receive control message: more than %d bytes", MaxMessage)
	}
	if err := json.Unmarshal(b[:n], &m); err != nil {
		return m, fmt.Errorf("receive control message: %w", err)
	}
	return m, nil
}
