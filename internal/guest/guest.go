// Package guest is what the host and the program inside a machine agree on:
// the configuration that the host puts into the initramfs, the commands that
// it sends, and the names of ports and requests. The two sides that act on it
// are subpackages: boot (process 1 of a machine) and agent (the SSH server)
// run inside, client runs on the host, link carries both over one byte
// stream. This package does nothing by itself, so that each side can import
// it without the other's dependencies.
package guest

// Version is that of Config and of the requests. The host and the guest
// program are built together, so that each refuses any other.
const Version = 1

// Names inside a machine.
const (
	// ConfigPath is where the initramfs holds the Config, mode 0600. It lies
	// in the machine's own part of the initramfs and never on a disk.
	ConfigPath = "/banger/config.json"
	// ModulesDir is where the initramfs holds the kernel modules of
	// Config.Modules.
	ModulesDir = "/banger/modules"
	// AgentPort is the name of the virtio-serial port that the agent opens,
	// as /sys/class/virtio-ports/*/name shows it.
	AgentPort = "banger.agent"
	// RootSerial and ModulesSerial are the serial numbers of the virtio
	// block devices with the root file system and with the kernel's modules,
	// as /sys/block/*/serial shows them.
	RootSerial    = "banger-root"
	ModulesSerial = "banger-modules"
	// ErrorPrefix begins the console line by which the guest program says
	// why a machine cannot go on; the rest of the line is the error.
	ErrorPrefix = "banger: error: "
	// NotePrefix begins its other console lines.
	NotePrefix = "banger: "
	// ProbeWord on the kernel's command line makes the guest program say
	// ProbeAnswer on the console and power off, before it looks for a Config.
	ProbeWord   = "banger.probe"
	ProbeAnswer = NotePrefix + "probe ok"
	// DefaultPath is where programs are looked for when a command's
	// environment has no PATH: docker's default.
	DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// Init says what becomes process 1 once the root file system is there.
type Init string

const (
	// InitBanger keeps the guest program as process 1: it reaps, and powers
	// the machine off when the main command has ended.
	InitBanger Init = "banger"
	// InitImage runs Config.InitArgs, the image's own init; the agent keeps
	// running beside it.
	InitImage Init = "image"
)

// Config is what a machine is told at boot. It holds private keys.
type Config struct {
	Version  int      `json:"version"`
	Hostname string   `json:"hostname"`
	Init     Init     `json:"init"`
	InitArgs []string `json:"initArgs,omitempty"` // argv with InitImage; the first is a guest path
	ReadOnly bool     `json:"readOnly,omitempty"` // the root file system
	Modules  []string `json:"modules,omitempty"`  // file names in ModulesDir, in the order to load
	// ModulesDisk says that a device with ModulesSerial holds an ext4 whose
	// root has lib/modules, to be mounted read-only over the image's.
	ModulesDisk bool    `json:"modulesDisk,omitempty"`
	Network     Network `json:"network,omitzero"`
	// HostKey is the agent's private key, OpenSSH PEM; ClientKeys are the
	// public keys that may log in, in the form of authorized_keys.
	HostKey    string   `json:"hostKey"`
	ClientKeys []string `json:"clientKeys"`
	// Time is the host's clock when the machine was started, in nanoseconds
	// since 1970; a machine without a clock of its own takes it. 0: leave it.
	Time int64 `json:"time,omitempty"`
	// Entropy seeds the guest's random numbers, so that machines cloned from
	// one image do not share them.
	Entropy []byte `json:"entropy,omitempty"`
}

// Network is what the guest sets up besides the loopback interface. The
// zero value is none.
type Network struct {
	Device  string   `json:"device,omitempty"`  // interface name, such as eth0
	Address string   `json:"address,omitempty"` // IPv4 with prefix length, 10.0.2.15/24
	Gateway string   `json:"gateway,omitempty"` // IPv4
	DNS     []string `json:"dns,omitempty"`     // addresses for resolv.conf
	Search  []string `json:"search,omitempty"`
}

// The requests and channels besides those of RFC 4254. Payloads are one SSH
// string that holds JSON.
const (
	// RequestExec on a session channel runs a Command, in place of exec. It
	// is answered when the process has been started or could not be; then
	// follow the process's output and exit-status or exit-signal as RFC 4254
	// section 6.10 has them. A command that cannot be started gives
	// exit-status 127 (no such file) or 126 (not executable), as a shell
	// would, with one line on stderr.
	RequestExec = "exec@banger"
	// RequestArchive on a session channel copies files: an Archive. It is
	// answered and ends like RequestExec; remarks are lines on stderr, and so
	// is the error that an exit-status of 1 stands for.
	RequestArchive = "archive@banger"
	// RequestPowerOff is a global request: end the machine. With InitBanger
	// the main command gets StopSignal and then SIGKILL after Grace; with
	// InitImage the image's init is asked to power off.
	RequestPowerOff = "poweroff@banger"
	// RequestStatus is a global request whose answer is a Status.
	RequestStatus = "status@banger"
	// RequestClock is a global request that sets the clock: a Clock.
	RequestClock = "clock@banger"
)

// Command is a process to start inside the machine, without a shell.
type Command struct {
	Args []string `json:"args"`          // argv; the first is looked up in PATH of Env
	Env  []string `json:"env,omitempty"` // NAME=value; HOME, PATH and, with a terminal, TERM are added where they lack
	// User is user[:group], names or numbers, as the OCI image specification
	// has it: names are looked up in the image's /etc/passwd and /etc/group.
	// "" is root. Supplementary groups are those of /etc/group unless a group
	// is given.
	User string `json:"user,omitempty"`
	Dir  string `json:"dir,omitempty"` // working directory, made if need be; "" is /
	// Main says that the machine ends when this command has. There is one.
	Main bool `json:"main,omitempty"`
	// StopSignal is what a Main command gets when the machine is asked to
	// stop: a name such as SIGTERM or SIGRTMIN+3, or a number. "" is SIGTERM.
	StopSignal string `json:"stopSignal,omitempty"`
	// Stdin says whether the channel's data reaches the command; without it
	// the command reads /dev/null (or, with a terminal, nothing).
	Stdin bool `json:"stdin,omitempty"`
}

// An ArchiveOp is what an Archive does.
type ArchiveOp string

// The operations.
const (
	ArchiveStat ArchiveOp = "stat" // answer with an archive.Stat as JSON on stdout
	ArchiveGet  ArchiveOp = "get"  // write a tar stream of Path on stdout
	ArchivePut  ArchiveOp = "put"  // read one from stdin into the folder Path
)

// Archive is the payload of RequestArchive. Root does it.
type Archive struct {
	Path string    `json:"path"` // in the machine; a relative one begins at the root
	Op   ArchiveOp `json:"op"`
	// FollowLink has a symlink at Path stand for what it leads to: get.
	FollowLink bool `json:"followLink,omitempty"`
	// KeepOwners gives files the owners that the stream names, not root: put.
	KeepOwners bool `json:"keepOwners,omitempty"`
}

// PowerOff is the payload of RequestPowerOff.
type PowerOff struct {
	Grace int64 `json:"grace"` // milliseconds between StopSignal and SIGKILL
}

// Clock is the payload of RequestClock.
type Clock struct {
	Time int64 `json:"time"` // nanoseconds since 1970
}

// Status is the answer to RequestStatus.
type Status struct {
	Version int     `json:"version"`
	Uptime  float64 `json:"uptime"` // seconds since the kernel started
	// Ready is the time from the kernel's start to when the root file system
	// was in place, in seconds.
	Ready  float64  `json:"ready"`
	Memory int64    `json:"memory"` // bytes in use
	Init   Init     `json:"init"`
	Notes  []string `json:"notes,omitempty"` // what the guest program did and could not do
}
