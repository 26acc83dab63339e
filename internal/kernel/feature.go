package kernel

import "slices"

// State is the way in which a kernel provides a feature.
type State string

// The states of a feature.
const (
	BuiltIn  State = "built in"
	IsModule State = "module"
	Missing  State = "missing"
	Unknown  State = "unknown" // the kernel has no configuration
)

// Feature is a part of the kernel that banger uses.
type Feature struct {
	Name     string `json:"name"`     // of the module, if the feature can be one
	Option   string `json:"option"`   // of the kernel's configuration
	Required bool   `json:"required"` // no machine runs without it
	Purpose  string `json:"purpose"`
	State    State  `json:"state"`
}

// features are the features that banger uses, the required ones first, without
// their states.
var features = []Feature{
	{Name: "devtmpfs", Option: "CONFIG_DEVTMPFS", Required: true, Purpose: "device files"},
	{Name: "tmpfs", Option: "CONFIG_TMPFS", Required: true, Purpose: "/run, /dev/shm"},
	{Name: "initramfs", Option: "CONFIG_BLK_DEV_INITRD", Required: true, Purpose: "starting the guest program"},
	{Name: "console", Option: "CONFIG_SERIAL_8250_CONSOLE", Required: true, Purpose: "messages of the kernel"},
	{Name: "ext4", Option: "CONFIG_EXT4_FS", Required: true, Purpose: "the root disk"},
	{Name: "virtio_blk", Option: "CONFIG_VIRTIO_BLK", Required: true, Purpose: "the root disk"},
	{Name: "virtio_console", Option: "CONFIG_VIRTIO_CONSOLE", Required: true, Purpose: "the agent"},
	{Name: "virtio_mmio", Option: "CONFIG_VIRTIO_MMIO", Purpose: "machines of type microvm"},
	{Name: "virtio_pci", Option: "CONFIG_VIRTIO_PCI", Purpose: "machines of type q35"},
	{Name: "pvh", Option: "CONFIG_PVH", Purpose: "a quicker start"},
	{Name: "net", Option: "CONFIG_INET", Purpose: "network"},
	{Name: "virtio_net", Option: "CONFIG_VIRTIO_NET", Purpose: "network"},
	{Name: "virtio_rng", Option: "CONFIG_HW_RANDOM_VIRTIO", Purpose: "random numbers from the host"},
	{Name: "vmw_vsock_virtio_transport", Option: "CONFIG_VIRTIO_VSOCKETS", Purpose: "the agent under other monitors"},
	{Name: "cgroups", Option: "CONFIG_CGROUPS", Purpose: "systemd and containers"},
	{Name: "namespaces", Option: "CONFIG_NAMESPACES", Purpose: "systemd and containers"},
	{Name: "seccomp", Option: "CONFIG_SECCOMP_FILTER", Purpose: "containers"},
	{Name: "overlay", Option: "CONFIG_OVERLAY_FS", Purpose: "containers"},
	{Name: "fuse", Option: "CONFIG_FUSE_FS", Purpose: "file systems of programs"},
	{Name: "loop", Option: "CONFIG_BLK_DEV_LOOP", Purpose: "images as disks"},
	{Name: "dm_mod", Option: "CONFIG_BLK_DEV_DM", Purpose: "device mapper"},
	{Name: "dm_snapshot", Option: "CONFIG_DM_SNAPSHOT", Purpose: "device mapper"},
	{Name: "tun", Option: "CONFIG_TUN", Purpose: "taps and tunnels"},
	{Name: "autofs4", Option: "CONFIG_AUTOFS_FS", Purpose: "systemd"},
}

// optionOf returns the configuration option that builds the module name, or ""
// if the option can be derived from the name.
func optionOf(name string) string {
	for _, f := range features {
		if f.Name == name {
			return f.Option
		}
	}
	return ""
}

// Features returns the features that banger uses and their states in this
// kernel, the required ones first.
func (k *Kernel) Features() ([]Feature, error) {
	r, err := k.resolver()
	if err != nil {
		return nil, err
	}
	out := slices.Clone(features)
	for i := range out {
		f := &out[i]
		f.State = r.state(f.Name, f.Option)
		if f.Name == "pvh" && k.PVH {
			f.State = BuiltIn
		}
	}
	return out, nil
}
