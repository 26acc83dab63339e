package api

import "time"

// Version is the version of the protocol, that is of its routes and of the types in
// this package. A daemon refuses a request of another version.
const Version = 1

// Info describes a daemon.
type Info struct {
	API      int       `json:"api"`
	Version  string    `json:"version"` // of the daemon's program
	PID      int       `json:"pid"`
	DataRoot string    `json:"dataRoot"`
	Started  time.Time `json:"started"`
	Machines int       `json:"machines"` // number of all machines
	Running  int       `json:"running"`  // number of those that run
}

// A State is a stage in the life of a machine.
type State string

// The states.
const (
	StateCreating State = "creating" // its disk is being made, or it boots for the first time
	StateCreated  State = "created"
	StateRunning  State = "running"
	StateExited   State = "exited"
)

// A Restart is the policy for booting a machine again after it has ended.
type Restart struct {
	// Policy is no, on-failure, always or unless-stopped, with docker's meaning; "" is no.
	Policy string `json:"policy,omitempty"`
	// Retries bounds the boots of on-failure; 0 means no bound.
	Retries int `json:"retries,omitempty"`
}

// Config is the configuration of a machine. The zero value runs the image's command on
// the smallest machine.
type Config struct {
	Hostname   string            `json:"hostname,omitempty"` // "" is the machine's name
	CPUs       int               `json:"cpus,omitempty"`
	Memory     int64             `json:"memory,omitempty"`     // bytes
	DiskSize   int64             `json:"diskSize,omitempty"`   // bytes; 0: the image's
	DiskDriver string            `json:"diskDriver,omitempty"` // auto, reflink, overlay, dm or copy; "" is auto
	Model      string            `json:"model,omitempty"`      // microvm or q35; "" is microvm
	Init       string            `json:"init,omitempty"`       // auto, image or banger; "" is auto
	Accel      string            `json:"accel,omitempty"`      // kvm or tcg; "" is KVM if it works, else TCG
	ReadOnly   bool              `json:"readOnly,omitempty"`
	Entrypoint *string           `json:"entrypoint,omitempty"` // nil: the image's; "": none
	Args       []string          `json:"args,omitempty"`       // in place of the image's Cmd
	Env        []string          `json:"env,omitempty"`        // NAME=value sets a variable in addition to the image's, NAME removes one
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
	Why    string `json:"why,omitempty"` // the reason for this driver
	Path   string `json:"path"`
	Size   int64  `json:"size"` // bytes, as the guest sees it
}

// A Machine is the record of a machine.
type Machine struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	State     State     `json:"state"`
	Image     string    `json:"image"`          // digest
	ImageName string    `json:"imageName"`      // as the user gave it
	Kernel    string    `json:"kernel"`         // digest
	Init      string    `json:"init,omitempty"` // process 1: image or banger; Config.Init may be auto
	Command   []string  `json:"command"`
	Config    Config    `json:"config"`
	Disk      Disk      `json:"disk,omitzero"`
	Remove    bool      `json:"remove,omitempty"` // the machine is removed when it ends
	Created   time.Time `json:"created"`
	Started   time.Time `json:"started,omitzero"`
	Finished  time.Time `json:"finished,omitzero"`
	ExitCode  int       `json:"exitCode"`        // of the main command; 125 if the machine failed
	Error     string    `json:"error,omitempty"` // why it ended, if it failed
	Restarts  int       `json:"restarts,omitempty"`
	// Paused is why a running machine stands still, such as "host disk full"; "" if it
	// does not.
	Paused string `json:"paused,omitempty"`
	PID    int    `json:"pid,omitempty"` // of the supervisor, while it runs
	Folder string `json:"folder"`        // on the host, with its disk and logs
}

// A List is the answer to a ListRequest, newest machine first.
type List struct {
	Machines []Machine `json:"machines"`
	Warnings []string  `json:"warnings,omitempty"` // of records that cannot be read
}

// A ListRequest selects machines.
type ListRequest struct {
	All bool // include machines that do not run
	// Filters are name=, id=, label=KEY[=VALUE], label!=KEY[=VALUE], status=, image= (name
	// or digest prefix) and exited=CODE. A machine is listed if it matches, for each key that
	// occurs, at least one filter of that key, and all filters of label!.
	Filters []string
}

// A CreateRequest creates a machine.
type CreateRequest struct {
	Name      string `json:"name,omitempty"`      // "" is a random name
	Image     string `json:"image"`               // name or digest of a local image
	ImageName string `json:"imageName,omitempty"` // name of the image in the machine's record; "" is Image
	Kernel    string `json:"kernel,omitempty"`    // name or digest of a local kernel; "" is the default one
	Remove    bool   `json:"remove,omitempty"`    // remove the machine and its disk when it ends
	Config    Config `json:"config"`
}

// Created is the answer to a CreateRequest.
type Created struct {
	Machine  Machine  `json:"machine"`
	Warnings []string `json:"warnings,omitempty"`
}

// A StartRequest boots a machine. A field that is zero leaves the machine's setting.
type StartRequest struct {
	Kernel string `json:"kernel,omitempty"`
	Accel  string `json:"accel,omitempty"`
	// Attach connects the client to the main command from its beginning, and Console to
	// the console too. Both need an upgraded connection.
	Attach  bool `json:"attach,omitempty"`
	Console bool `json:"console,omitempty"`
	TTY     *TTY `json:"tty,omitempty"` // the client's terminal, if the machine has one
}

// A RunRequest creates a machine and boots it. If the machine does not start, the daemon
// removes it.
type RunRequest struct {
	Create CreateRequest `json:"create"`
	Start  StartRequest  `json:"start"`
}

// TTY is the kind and the size of a terminal.
type TTY struct {
	Term string `json:"term,omitempty"`
	Rows int    `json:"rows"`
	Cols int    `json:"cols"`
}

// An Event reports the progress of a start. One of its fields is set.
type Event struct {
	Phase   string   `json:"phase,omitempty"`   // name of a step that is done
	Notice  string   `json:"notice,omitempty"`  // a message for the user
	Machine *Machine `json:"machine,omitempty"` // the machine, after its creation
	Ready   bool     `json:"ready,omitempty"`   // the agent answers, and the main command is being started
}

// A StopRequest ends a machine. Its main command gets its stop signal, and SIGKILL after
// the timeout. Then the machine powers off, or is killed if it does not.
type StopRequest struct {
	Timeout *int `json:"timeout,omitempty"` // seconds; nil is 10
}

// A KillRequest sends the main command a signal. KILL, the default, ends the machine at
// once, like a power failure.
type KillRequest struct {
	Signal string `json:"signal,omitempty"`
}

// A RenameRequest changes the name of a machine.
type RenameRequest struct {
	Name string `json:"name"`
}

// An ExecRequest runs another command in a machine.
type ExecRequest struct {
	Args  []string `json:"args"`
	Env   []string `json:"env,omitempty"`  // in addition to the machine's
	User  string   `json:"user,omitempty"` // "" is the machine's
	Dir   string   `json:"dir,omitempty"`
	Stdin bool     `json:"stdin,omitempty"`
	TTY   *TTY     `json:"tty,omitempty"`

	// Detach ends the stream when the command has been started, with an Exit of code 0.
	// The command goes on, and its output is dropped.
	Detach bool `json:"detach,omitempty"`
}

// An AttachRequest connects to the main command of a running machine.
type AttachRequest struct {
	Stdin   bool `json:"stdin,omitempty"`
	Console bool `json:"console,omitempty"` // the console instead of the command's output
}

// An ArchiveRequest copies files out of a machine or into it, as a tar stream on the
// output or the input of the command.
type ArchiveRequest struct {
	Path string `json:"path"`
	// Op is stat (a JSON PathStat on the output), get or put.
	Op         string `json:"op"`
	FollowLink bool   `json:"followLink,omitempty"` // get: the target of a symbolic link at Path
	KeepOwners bool   `json:"keepOwners,omitempty"` // put: keep the archive's owners; else root owns the files
	// Sparse is for get: files with holes become entries of a type that only banger
	// knows; see docs/daemon.md. put accepts them always, if PathStat.Sparse is set.
	Sparse bool `json:"sparse,omitempty"`
}

// A PathStat describes a file in a machine. A Mode of 0 means that the file does not
// exist.
type PathStat struct {
	Name   string    `json:"name"` // base name
	Size   int64     `json:"size"`
	Mode   uint32    `json:"mode"` // st_mode of stat(2)
	MTime  time.Time `json:"mtime"`
	Target string    `json:"target,omitempty"` // the final target of a symbolic link
	// IsDir is also true for a link to a folder.
	IsDir bool `json:"isDir,omitempty"`
	// Sparse is true if the machine knows ArchiveRequest.Sparse.
	Sparse bool `json:"sparse,omitempty"`
}

// A LogsRequest selects lines of a machine's logs.
type LogsRequest struct {
	Console bool      // the console's log instead of the main command's
	Follow  bool      // wait for further lines until the machine ends
	Since   time.Time // zero: from the beginning
	Until   time.Time // zero: to the end
	Tail    int       // number of lines before the end; negative: all
}

// A LogLine is a line of output or a part of one, as it was written.
type LogLine struct {
	Time   time.Time `json:"time"`
	Stream string    `json:"stream"` // stdout, stderr or console
	Data   []byte    `json:"data"`   // base64 in JSON
}

// Stats are the resources that a running machine uses now.
type Stats struct {
	ID     string    `json:"id"`
	Name   string    `json:"name"`
	Time   time.Time `json:"time"`
	CPU    float64   `json:"cpu"`    // processor seconds of the host that the monitor has used
	Memory int64     `json:"memory"` // bytes in use, as the guest reports it
	Limit  int64     `json:"limit"`  // bytes of memory that the guest has
	RSS    int64     `json:"rss"`    // bytes of host memory that the monitor has
	Disk   int64     `json:"disk"`   // bytes that the disk takes on the host
	Read   int64     `json:"read"`   // bytes that the monitor has read from storage
	Write  int64     `json:"write"`  // bytes that the monitor has written to storage
	Uptime float64   `json:"uptime"` // seconds
}

// An Exit reports how a command ended.
type Exit struct {
	Code   int    `json:"code"`             // its exit status, or 128 plus the number of the signal that ended it
	Signal string `json:"signal,omitempty"` // that signal
	Error  string `json:"error,omitempty"`  // why the machine ended, if it failed
}

// A PruneRequest removes machines that do not run.
type PruneRequest struct {
	Filters []string `json:"filters,omitempty"` // as in ListRequest, and until=TIME or until=DURATION
}

// Pruned is the answer to a PruneRequest.
type Pruned struct {
	Machines []string `json:"machines"` // IDs of the machines that were removed
	Freed    int64    `json:"freed"`    // bytes
}
