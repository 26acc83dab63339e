package api

import "time"

// Version is that of the protocol: of the routes and the types here. A
// daemon refuses requests of another.
const Version = 1

// Info is what a daemon says of itself.
type Info struct {
	API      int       `json:"api"`
	Version  string    `json:"version"` // of the program
	PID      int       `json:"pid"`
	DataRoot string    `json:"dataRoot"`
	Started  time.Time `json:"started"`
	Machines int       `json:"machines"` // that there are
	Running  int       `json:"running"`
}

// A State is where a machine is in its life.
type State string

// The states.
const (
	StateCreating State = "creating" // its disk is being made, or it boots for the first time
	StateCreated  State = "created"
	StateRunning  State = "running"
	StateExited   State = "exited"
)

// A Restart says when a machine that has ended is booted again.
type Restart struct {
	// Policy is no, on-failure, always or unless-stopped, as docker's; "" is no.
	Policy string `json:"policy,omitempty"`
	// Retries bounds on-failure; 0 is no bound.
	Retries int `json:"retries,omitempty"`
}

// Config is what a machine is to be. The zero value runs the image's own
// command on the smallest machine.
type Config struct {
	Hostname   string            `json:"hostname,omitempty"` // "" is the machine's name
	CPUs       int               `json:"cpus,omitempty"`
	Memory     int64             `json:"memory,omitempty"`     // bytes
	DiskSize   int64             `json:"diskSize,omitempty"`   // bytes; 0: the image's
	DiskDriver string            `json:"diskDriver,omitempty"` // auto, reflink, overlay, dm or copy; "" is auto
	Model      string            `json:"model,omitempty"`      // microvm or q35; "" is microvm
	Init       string            `json:"init,omitempty"`       // auto, image or banger; "" is auto
	Accel      string            `json:"accel,omitempty"`      // kvm or tcg; "" takes KVM where it works
	ReadOnly   bool              `json:"readOnly,omitempty"`
	Entrypoint *string           `json:"entrypoint,omitempty"` // nil: the image's; "": none
	Args       []string          `json:"args,omitempty"`       // in place of the image's Cmd
	Env        []string          `json:"env,omitempty"`        // NAME=value over the image's, NAME to take one away
	User       string            `json:"user,omitempty"`       // user[:group]; "" is the image's
	Dir        string            `json:"dir,omitempty"`        // absolute; "" is the image's
	TTY        bool              `json:"tty,omitempty"`
	Stdin      bool              `json:"stdin,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Restart    Restart           `json:"restart,omitzero"`
}

// A Disk is a machine's root disk.
type Disk struct {
	Driver string `json:"driver"`
	Why    string `json:"why,omitempty"` // this driver and no other
	Path   string `json:"path"`
	Size   int64  `json:"size"` // bytes, as the guest sees it
}

// A Machine is what is known of one.
type Machine struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	State     State     `json:"state"`
	Image     string    `json:"image"`     // digest
	ImageName string    `json:"imageName"` // as the user gave it
	Kernel    string    `json:"kernel"`    // digest
	Command   []string  `json:"command"`
	Config    Config    `json:"config"`
	Disk      Disk      `json:"disk,omitzero"`
	Remove    bool      `json:"remove,omitempty"` // gone when it ends
	Created   time.Time `json:"created"`
	Started   time.Time `json:"started,omitzero"`
	Finished  time.Time `json:"finished,omitzero"`
	ExitCode  int       `json:"exitCode"`        // of the main command; 125 when the machine failed
	Error     string    `json:"error,omitempty"` // why it ended, where that was not in order
	Restarts  int       `json:"restarts,omitempty"`
	PID       int       `json:"pid,omitempty"` // of the supervisor, while it runs
	Folder    string    `json:"folder"`        // on the host, with its disk and logs
}

// A List is all machines asked for, newest first.
type List struct {
	Machines []Machine `json:"machines"`
	Warnings []string  `json:"warnings,omitempty"` // of records that cannot be read
}

// A ListRequest says which machines are wanted.
type ListRequest struct {
	All bool // also those that do not run
	// Filters are name=, id=, label=KEY[=VALUE], status=, image= (name or
	// digest prefix) and exited=CODE. Of several of one key one must fit, of
	// each key.
	Filters []string
}

// A CreateRequest makes a machine.
type CreateRequest struct {
	Name      string `json:"name,omitempty"`      // "" makes one up
	Image     string `json:"image"`               // name or digest of a local image
	ImageName string `json:"imageName,omitempty"` // what the machine says that its image is called; "" is Image
	Kernel    string `json:"kernel,omitempty"`    // name or digest of a local kernel; "" is the default one
	Remove    bool   `json:"remove,omitempty"`    // the machine with its disk, when it ends
	Config    Config `json:"config"`
}

// Created is the answer to a CreateRequest.
type Created struct {
	Machine  Machine  `json:"machine"`
	Warnings []string `json:"warnings,omitempty"`
}

// A StartRequest boots a machine. A field that is zero is as the machine has
// it.
type StartRequest struct {
	Kernel string `json:"kernel,omitempty"`
	Accel  string `json:"accel,omitempty"`
	// Attach connects the client with the main command from its beginning,
	// Console with the console too. They need an upgraded connection.
	Attach  bool `json:"attach,omitempty"`
	Console bool `json:"console,omitempty"`
	TTY     *TTY `json:"tty,omitempty"` // size and kind of the terminal of a machine that has one
}

// A RunRequest makes a machine and boots it. Of a machine that could not be
// started nothing is left.
type RunRequest struct {
	Create CreateRequest `json:"create"`
	Start  StartRequest  `json:"start"`
}

// TTY is a terminal.
type TTY struct {
	Term string `json:"term,omitempty"`
	Rows int    `json:"rows"`
	Cols int    `json:"cols"`
}

// An Event tells how far a start has come. One field is set.
type Event struct {
	Phase   string   `json:"phase,omitempty"`   // a step that is done
	Notice  string   `json:"notice,omitempty"`  // a remark for the user
	Machine *Machine `json:"machine,omitempty"` // it has been made
	Ready   bool     `json:"ready,omitempty"`   // its agent answers, and its main command is being started
}

// A StopRequest ends a machine: its main command gets its stop signal, and
// SIGKILL when the time is over; then the machine powers off, or is killed.
type StopRequest struct {
	Timeout *int `json:"timeout,omitempty"` // seconds; nil is 10
}

// A KillRequest sends the main command a signal. KILL, which is the default,
// ends the machine as pulling its plug would.
type KillRequest struct {
	Signal string `json:"signal,omitempty"`
}

// A RenameRequest gives a machine another name.
type RenameRequest struct {
	Name string `json:"name"`
}

// An ExecRequest runs a further command in a machine.
type ExecRequest struct {
	Args  []string `json:"args"`
	Env   []string `json:"env,omitempty"`  // over the machine's
	User  string   `json:"user,omitempty"` // "" is the machine's
	Dir   string   `json:"dir,omitempty"`
	Stdin bool     `json:"stdin,omitempty"`
	TTY   *TTY     `json:"tty,omitempty"`

	// Detach leaves the command to itself once it has been started: the stream
	// ends with an Exit of code 0, and what the command says is dropped.
	Detach bool `json:"detach,omitempty"`
}

// An AttachRequest connects with a machine's main command as it runs.
type AttachRequest struct {
	Stdin   bool `json:"stdin,omitempty"`
	Console bool `json:"console,omitempty"` // the console in the place of the command's output
}

// An ArchiveRequest copies files out of a machine, or into it, as a tar
// stream on the command's output or input.
type ArchiveRequest struct {
	Path string `json:"path"`
	// Op is stat (a JSON PathStat on the output), get or put.
	Op         string `json:"op"`
	FollowLink bool   `json:"followLink,omitempty"` // get: what a link at Path points to
	KeepOwners bool   `json:"keepOwners,omitempty"` // put: the archive's owners, not root
}

// A PathStat describes a file in a machine. A Mode of 0 says that there is
// none.
type PathStat struct {
	Name   string    `json:"name"` // base name
	Size   int64     `json:"size"`
	Mode   uint32    `json:"mode"` // st_mode of stat(2)
	MTime  time.Time `json:"mtime"`
	Target string    `json:"target,omitempty"` // where a symbolic link leads in the end
	// IsDir is also true of a link to a folder.
	IsDir bool `json:"isDir,omitempty"`
}

// A LogsRequest says which lines of a machine's logs are wanted.
type LogsRequest struct {
	Console bool      // the console's, in the place of the main command's output
	Follow  bool      // go on until the machine ends
	Since   time.Time // zero: from the beginning
	Until   time.Time // zero: to the end
	Tail    int       // the last lines alone; negative: all
}

// A LogLine is a piece of output, a line or a part of one, as it was written.
type LogLine struct {
	Time   time.Time `json:"time"`
	Stream string    `json:"stream"` // stdout, stderr or console
	Data   []byte    `json:"data"`   // base64 in JSON
}

// Stats are what a running machine uses now.
type Stats struct {
	ID     string    `json:"id"`
	Name   string    `json:"name"`
	Time   time.Time `json:"time"`
	CPU    float64   `json:"cpu"`    // seconds of the host's processors that the monitor has used
	Memory int64     `json:"memory"` // bytes that the guest says are in use
	Limit  int64     `json:"limit"`  // bytes of memory that the guest has
	RSS    int64     `json:"rss"`    // bytes that the monitor has of the host
	Disk   int64     `json:"disk"`   // bytes that the disk has on the host
	Read   int64     `json:"read"`   // bytes that the monitor has read from storage
	Write  int64     `json:"write"`  // and written
	Uptime float64   `json:"uptime"` // seconds
}

// An Exit is how a command ended.
type Exit struct {
	Code   int    `json:"code"`             // its exit status; 128 and the signal's number where one ended it
	Signal string `json:"signal,omitempty"` // that signal
	Error  string `json:"error,omitempty"`  // why the machine ended, where that was not in order
}

// A PruneRequest removes machines that do not run.
type PruneRequest struct {
	Filters []string `json:"filters,omitempty"` // as in ListRequest, and until=TIME or until=DURATION
}

// Pruned is what a PruneRequest removed.
type Pruned struct {
	Machines []string `json:"machines"` // IDs
	Freed    int64    `json:"freed"`    // bytes
}
