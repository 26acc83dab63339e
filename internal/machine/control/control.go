// Package control is the protocol between a machine's supervisor and the other
// processes of the user: the descriptors that a new supervisor inherits, the
// Launch that it reads first, the requests that it serves while its machine
// runs, and the errors that it sends. The supervisor serves the protocol; the
// daemon is its client.
package control

import (
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/vmm"
)

// Descriptors that a supervisor inherits, after its standard streams.
const (
	StartFD = 3 // its end of a socket pair: a Launch arrives, then frames of the start leave
	LockFD  = 4 // the locked data folder of its machine
)

// SupervisorLog is the file in a machine's data folder that has the standard
// output and error of the machine's last supervisor.
const SupervisorLog = "supervisor.log"

// Files in a running machine's runtime folder.
const (
	// SocketFile is the socket at which the supervisor serves requests. Each
	// connection carries one: a Request frame, then the frames that belong to it.
	SocketFile = "control.sock"
	// SSHFile is the socket whose connections lead to the agent's SSH server.
	SSHFile = "ssh.sock"
	KeyFile = "key" // the private key that may log in, in the format of ssh(1)
	// KnownHostsFile has the agent's public key, for the host name HostAlias.
	KnownHostsFile = "known_hosts"
)

// HostAlias is the host name of every machine in its known_hosts file. Each
// file names one machine.
const HostAlias = "machine"

// Sockets returns the names of the sockets that a supervisor makes in the
// runtime folder.
func Sockets() []string { return []string{SocketFile, SSHFile} }

// A Launch describes one start of a machine.
type Launch struct {
	// Supervisor is the command line of a supervisor. The ID of the machine is
	// appended to it.
	Supervisor []string      `json:"-"`
	Kernel     digest.Digest `json:"kernel,omitempty"`  // "" is the kernel of the machine's record
	Accel      vmm.Accel     `json:"accel,omitempty"`   // "" is the accelerator of the machine's Config
	Attach     bool          `json:"attach,omitempty"`  // the stream continues as the main command's
	Console    bool          `json:"console,omitempty"` // the stream carries the console too
	TTY        *api.TTY      `json:"tty,omitempty"`     // size and type of the terminal, if the machine has one
	Notices    []string      `json:"notices,omitempty"` // remarks for the user, sent before the machine boots
	// First is set if the machine was made for this start. If the start fails,
	// the machine is removed.
	First bool `json:"first,omitempty"`
	// Files boots the machine only for its files: no program of the image runs,
	// the record does not change, and the supervisor serves only Archive,
	// HoldFiles, ReleaseFiles and Status. The machine powers off when no client
	// has used it for a while.
	Files bool `json:"files,omitempty"`
}

// A Request asks a supervisor to do something. One of the fields is set.
type Request struct {
	Stop    *int64              `json:"stop,omitempty"` // the grace in milliseconds
	Kill    *string             `json:"kill,omitempty"` // the signal
	Wait    bool                `json:"wait,omitempty"`
	Rename  string              `json:"rename,omitempty"`
	Stats   bool                `json:"stats,omitempty"`
	Status  bool                `json:"status,omitempty"`
	Exec    *api.ExecRequest    `json:"exec,omitempty"`
	Attach  *api.AttachRequest  `json:"attach,omitempty"`
	Archive *api.ArchiveRequest `json:"archive,omitempty"`
	// HoldFiles keeps a machine of Launch.Files up until the sender closes the
	// connection. The answer is empty. ReleaseFiles ends such a machine when no
	// client uses it.
	HoldFiles    bool `json:"holdFiles,omitempty"`
	ReleaseFiles bool `json:"releaseFiles,omitempty"`
	// Pass is set if the sender may pass the connection of its own client with
	// PassClient. A supervisor that takes it sends an Answer first; one of an
	// older version serves the request on this connection.
	Pass bool `json:"pass,omitempty"`
}

// A Status is the answer to Request.Status.
type Status struct {
	Paused string `json:"paused,omitempty"` // why the machine stands still; "" if it runs
}

// HostDiskFull is the reason of a machine that stands still until its host has space
// for what the machine writes to its disk.
const HostDiskFull = "host disk full"

// StopGrace is the time that a main command has to end after its stop signal,
// if the user gives none. It is docker's.
const StopGrace = 10 * time.Second
