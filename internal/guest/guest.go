// Package guest defines the protocol between the host and the guest program,
// which runs inside a machine: the configuration that the host puts into the
// initramfs, the requests that it sends, and the names of ports and devices.
//
// The package has no behaviour of its own, so each side can import it without
// the dependencies of the other. Inside a machine run the packages boot
// (process 1), control (messages between process 1 and the agent), agent (the
// SSH server) and tarcopy. On the host run client, initrd and bin. Both sides
// use link, which multiplexes connections over one byte stream.
package guest

// Version is the version of Config and of the requests. The host and the guest
// program are built together, and each refuses any other version.
const Version = 1

// Limits of the processes inside a machine.
const (
	// MaxOpenFiles is the limit of open files of a process. It is docker's
	// default, and the highest value that the kernel allows by default
	// (fs.nr_open). Without it, processes have the kernel's limits for process 1:
	// 1024, and at most 4096.
	MaxOpenFiles = 1 << 20
	// OOMScoreNever excludes a process from the choice of the kernel's OOM killer,
	// OOM_SCORE_ADJ_MIN of linux/oom.h.
	OOMScoreNever = -1000
)

// Names inside a machine.
const (
	// ConfigPath is the path of the Config in the initramfs, mode 0600. It is
	// in the machine's own part of the initramfs and is never written to a
	// disk.
	ConfigPath = "/banger/config.json"
	// ModulesDir is the folder in the initramfs that holds the kernel modules
	// of Config.Modules.
	ModulesDir = "/banger/modules"
	// AgentPort is the name of the virtio-serial port that the agent opens, as
	// in /sys/class/virtio-ports/*/name.
	AgentPort = "banger.agent"
	// RootSerial and ModulesSerial are the serial numbers of the virtio block
	// devices that hold the root file system and the kernel's modules, as in
	// /sys/block/*/serial.
	RootSerial    = "banger-root"
	ModulesSerial = "banger-modules"
	// ErrorPrefix begins the console line with the error that ends a machine.
	// The rest of the line is the error.
	ErrorPrefix = "banger: error: "
	// NotePrefix begins all other console lines of the guest program.
	NotePrefix = "banger: "
	// ProbeWord is a word on the kernel's command line. If it is there, the
	// guest program prints ProbeAnswer on the console and powers off, before it
	// reads a Config.
	ProbeWord   = "banger.probe"
	ProbeAnswer = NotePrefix + "probe ok"
	// DefaultPath is the search path for programs if a command's environment
	// has no PATH. It is docker's default.
	DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)
