package machine

import (
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/vmm"
)

// A Launch says how a machine is started.
type Launch struct {
	// Supervisor is the command line of a process that calls Supervise for
	// the machine whose ID is appended to it.
	Supervisor []string      `json:"-"`
	Kernel     digest.Digest `json:"kernel,omitempty"`  // "" is the one that the machine has
	Accel      vmm.Accel     `json:"accel,omitempty"`   // "" takes what the machine's Config says
	Attach     bool          `json:"attach,omitempty"`  // the stream goes on with the main command's
	Console    bool          `json:"console,omitempty"` // and has the console
	TTY        *api.TTY      `json:"tty,omitempty"`     // size and kind of the terminal of a machine that has one
	// First says that the machine has just been made to be run at once: when
	// the start fails it is removed.
	First bool `json:"first,omitempty"`
}

// A RestartPolicy says when a machine that has ended is booted again.
type RestartPolicy string

// The policies, docker's.
const (
	RestartNo            RestartPolicy = "no"
	RestartOnFailure     RestartPolicy = "on-failure" // when the exit code is not 0
	RestartAlways        RestartPolicy = "always"
	RestartUnlessStopped RestartPolicy = "unless-stopped"
)

// Restart is a policy with its bound.
type Restart struct {
	Policy  RestartPolicy `json:"policy,omitempty"`  // "" is RestartNo
	Retries int           `json:"retries,omitempty"` // of RestartOnFailure; 0 is no bound
}

// LogOptions say which lines of a log are wanted.
type LogOptions struct {
	Console bool // the console's, in the place of the main command's output
	Follow  bool // go on until the machine ends
	Since   time.Time
	Until   time.Time
	Tail    int // the last lines alone; negative: all
}
