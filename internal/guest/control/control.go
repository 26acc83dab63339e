// Package control carries messages between process 1 of a machine and the
// agent, which is its child, over a pair of sockets. Each message is one
// packet that holds one JSON object and a newline: a reader never holds part
// of the next. The package knows what the messages are and not what to do
// about them.
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

// FD is the descriptor that the agent finds its end at.
const FD = 3

// MaxMessage is the most bytes that a message may have: the kernel's default
// for what a socket queues (net.core.wmem_default) is 208 KiB.
const MaxMessage = 128 << 10

// A Message has one field set, with two exceptions: Notes may come with Root.
//
// To the agent: Config, first; Root, when the root file system is mounted at
// Sysroot, upon which the agent changes its root to there and answers Rooted;
// Fatal, when the machine is about to end for want of something. Once the
// image's own init has taken process 1 over, nobody answers any more and the
// agent reads io.EOF.
//
// From the agent: Rooted; MainEnded, when the main command has ended and its
// status was delivered or nobody is left to take it; PowerOff, when the host
// asked for the machine's end and no main command is left to wait for.
type Message struct {
	Config *guest.Config `json:"config,omitempty"`
	Root   bool          `json:"root,omitempty"`
	Notes  []string      `json:"notes,omitempty"` // for guest.Status
	Fatal  string        `json:"fatal,omitempty"`

	Rooted    bool   `json:"rooted,omitempty"`
	MainEnded bool   `json:"mainEnded,omitempty"`
	PowerOff  *int64 `json:"powerOff,omitempty"` // milliseconds of grace for what still runs
}

// Sysroot is where the root file system is mounted until the root changes.
const Sysroot = "/sysroot"

// Pair returns the two ends, the second for the agent. Both are closed by an
// exec that does not pass them on.
func Pair() (boot, agent *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make control sockets: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control"), nil
}

// Open returns the agent's end in the agent's process, which is descriptor
// FD, and the configuration, which is the first message there.
func Open() (*os.File, *guest.Config, error) {
	unix.CloseOnExec(FD)
	// The runtime waits on a descriptor without a thread only where it does not block.
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

// Send sends one message. It may be called by several goroutines.
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

// Receive waits for the next message. The error is io.EOF when the other end
// is gone.
func Receive(f *os.File) (Message, error) {
	var m Message
	b := make([]byte, MaxMessage+1) // one more, so that too long a message shows
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
