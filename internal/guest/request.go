package guest

// The SSH requests that banger adds to those of RFC 4254. Each payload is one
// SSH string that holds JSON.
const (
	// RequestExec is a request on a session channel that runs a Command. It
	// replaces exec. The reply comes when the process has started or has failed
	// to start. The process's output and an exit-status or exit-signal follow,
	// as in RFC 4254, section 6.10. If the command cannot be started,
	// exit-status is 127 (no such file) or 126 (not executable), as in a shell,
	// and stderr carries one line.
	RequestExec = "exec@banger"
	// RequestPart is a request on a session channel that carries a part of the
	// JSON of the RequestExec that follows. It has no reply. An SSH packet has
	// at most 256 KiB, and the arguments of a command up to 2 MiB.
	RequestPart = "part@banger"
	// RequestArchive is a request on a session channel that copies files, as an
	// Archive describes. It is answered and ends like RequestExec. Warnings are
	// lines on stderr. If exit-status is 1, the error is on stderr too.
	RequestArchive = "archive@banger"
	// RequestPowerOff is a global request that ends the machine. With
	// InitBanger the main command gets its StopSignal, and SIGKILL after
	// PowerOff.Grace. With InitImage the image's init is asked to power off.
	RequestPowerOff = "poweroff@banger"
	// RequestStatus is a global request. The reply is a Status.
	RequestStatus = "status@banger"
	// RequestClock is a global request that sets the guest's clock to a Clock.
	RequestClock = "clock@banger"
)

// MaxRequest is the maximum size in bytes of the JSON of a request. Arguments of
// 2 MiB, the limit of the kernel (ARG_MAX), take at most six times their size in JSON.
const MaxRequest = 16 << 20

// Command describes a process to start inside the machine, without a shell.
type Command struct {
	Args []string `json:"args"`          // argv; the first is looked up in PATH of Env
	Env  []string `json:"env,omitempty"` // NAME=value; if missing, HOME, PATH and, with a terminal, TERM are added
	// User is user[:group], by name or number, as in the OCI image
	// specification. Names are looked up in the image's /etc/passwd and
	// /etc/group. "" is root. The supplementary groups come from /etc/group
	// unless a group is given.
	User string `json:"user,omitempty"`
	Dir  string `json:"dir,omitempty"` // working directory; "" is /. A Main command's is created if it is missing.
	// Main marks the machine's main command. The machine ends when it has
	// ended. There can be only one.
	Main bool `json:"main,omitempty"`
	// StopSignal is the signal that a Main command gets when the machine is
	// asked to stop: a name such as SIGTERM or SIGRTMIN+3, or a number. "" is
	// SIGTERM.
	StopSignal string `json:"stopSignal,omitempty"`
	// Stdin connects the channel's data to the command's standard input.
	// Without it the command reads /dev/null, or, with a terminal, nothing.
	Stdin bool `json:"stdin,omitempty"`
}

// An ArchiveOp is an operation of an Archive request.
type ArchiveOp string

// The operations of an Archive request.
const (
	ArchiveStat ArchiveOp = "stat" // write a tarcopy.Stat as JSON to stdout
	ArchiveGet  ArchiveOp = "get"  // write a tar stream of Path to stdout
	ArchivePut  ArchiveOp = "put"  // read a tar stream from stdin into the folder Path
)

// Archive is the payload of RequestArchive. The agent carries it out as root.
type Archive struct {
	Path string    `json:"path"` // in the machine; a relative path begins at the root
	Op   ArchiveOp `json:"op"`
	// FollowLink copies the target of a symlink at Path instead of the symlink.
	// It applies to ArchiveGet.
	FollowLink bool `json:"followLink,omitempty"`
	// KeepOwners gives files the owners in the stream instead of root. It
	// applies to ArchivePut.
	KeepOwners bool `json:"keepOwners,omitempty"`
	// Sparse packs files with holes as sparse entries of package tarcopy. It
	// applies to ArchiveGet.
	Sparse bool `json:"sparse,omitempty"`
	// Sync writes the files to the disk before the reply. It applies to
	// ArchivePut.
	Sync bool `json:"sync,omitempty"`
}

// PowerOff is the payload of RequestPowerOff.
type PowerOff struct {
	Grace int64 `json:"grace"` // milliseconds between StopSignal and SIGKILL
}

// Clock is the payload of RequestClock.
type Clock struct {
	Time int64 `json:"time"` // nanoseconds since 1970
}

// Status is the reply to RequestStatus.
type Status struct {
	Version int     `json:"version"`
	Uptime  float64 `json:"uptime"` // seconds since the kernel started
	// Ready is the time in seconds from the kernel's start until the root file
	// system was in place.
	Ready  float64  `json:"ready"`
	Memory int64    `json:"memory"` // bytes in use
	Init   Init     `json:"init"`
	Notes  []string `json:"notes,omitempty"` // one for each notable or failed step of the boot
}
