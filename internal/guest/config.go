package guest

// Init selects the program that runs as process 1 after the root file system is
// mounted.
type Init string

const (
	// InitBanger keeps the guest program as process 1. It reaps processes, and
	// powers the machine off when the main command has ended.
	InitBanger Init = "banger"
	// InitImage replaces the guest program by the image's own init,
	// Config.InitArgs. The agent keeps running beside it.
	InitImage Init = "image"
)

// Config is the configuration that the guest program reads at boot. It holds
// private keys.
type Config struct {
	Version  int      `json:"version"`
	Hostname string   `json:"hostname"`
	Init     Init     `json:"init"`
	InitArgs []string `json:"initArgs,omitempty"` // argv for InitImage; the first element is an absolute path in the image
	ReadOnly bool     `json:"readOnly,omitempty"` // mount the root file system read-only
	// Overlay mounts an overlay over the read-only root file system, for the
	// mount points and Folders that the image lacks. It is read-only too when
	// the first program of the image runs.
	Overlay bool     `json:"overlay,omitempty"`
	Folders []string `json:"folders,omitempty"` // absolute paths of folders to create, if they are missing
	// FilesOnly mounts nothing over the root file system but /proc, because no
	// program of the image runs, and the host copies files of the disk.
	FilesOnly bool     `json:"filesOnly,omitempty"`
	Modules   []string `json:"modules,omitempty"` // file names in ModulesDir, in load order
	// ModulesDisk reports whether a device with ModulesSerial is attached. It
	// holds an ext4 file system with the folder lib/modules, which the guest
	// program mounts read-only over the image's.
	ModulesDisk bool    `json:"modulesDisk,omitempty"`
	Network     Network `json:"network,omitzero"`
	// HostKey is the agent's private key as OpenSSH PEM. ClientKeys are the
	// public keys that may log in, in the format of authorized_keys.
	HostKey    string   `json:"hostKey"`
	ClientKeys []string `json:"clientKeys"`
	// Time is the host's clock when the machine was started, in nanoseconds
	// since 1970. The guest sets its own clock from it if that is wrong. 0
	// leaves the clock alone.
	Time int64 `json:"time,omitempty"`
	// Entropy seeds the kernel's random number generator, so that machines
	// cloned from one image do not generate the same numbers.
	Entropy []byte `json:"entropy,omitempty"`
}

// Network describes the interface that the guest configures besides loopback.
// The zero value means that there is none.
type Network struct {
	Device  string   `json:"device,omitempty"`  // interface name, such as eth0
	Address string   `json:"address,omitempty"` // IPv4 with prefix length, such as 10.0.2.15/24
	Gateway string   `json:"gateway,omitempty"` // IPv4
	DNS     []string `json:"dns,omitempty"`     // name servers for resolv.conf
	Search  []string `json:"search,omitempty"`
}
