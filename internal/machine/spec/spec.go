// Package spec describes a machine as a user asks for it. It is the only package
// that decides whether such a description is valid: the command line and the daemon
// parse into a Config, call Validate and show its error. The package knows nothing
// of images, of hosts or of how a machine runs.
package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/vmm"
)

// Defaults and bounds of a machine.
const (
	DefaultCPUs   = 1
	DefaultMemory = 512 << 20 // bytes
	MinMemory     = 128 << 20 // bytes: the kernel and its initramfs need them
	MaxCPUs       = 255       // KVM_MAX_VCPUS of the oldest kernels in use
	sectorSize    = 512       // bytes; the size of a disk is a multiple of it
)

// An InitChoice selects the program that becomes process 1 of a machine.
type InitChoice string

// The choices, as the command line spells them.
const (
	InitAuto   InitChoice = "auto"   // the image's init if the command is one, else banger's
	InitImage  InitChoice = "image"  // the image's
	InitBanger InitChoice = "banger" // banger's guest program
)

// Config describes a machine. The zero value runs the image's own command on
// the smallest machine.
type Config struct {
	Name       string            `json:"name,omitempty"`     // "" makes one up
	Hostname   string            `json:"hostname,omitempty"` // "" is Name
	CPUs       int               `json:"cpus,omitempty"`
	Memory     int64             `json:"memory,omitempty"`   // bytes
	DiskSize   int64             `json:"diskSize,omitempty"` // bytes; 0: the image's
	Model      vmm.Model         `json:"model,omitempty"`    // "" is MicroVM
	Init       InitChoice        `json:"init,omitempty"`     // "" is InitAuto
	ReadOnly   bool              `json:"readOnly,omitempty"`
	Entrypoint *string           `json:"entrypoint,omitempty"` // nil: the image's; "": none
	Args       []string          `json:"args,omitempty"`       // replace the image's Cmd
	Env        []string          `json:"env,omitempty"`        // NAME=value added to the image's, NAME to remove one
	User       string            `json:"user,omitempty"`       // "" is the image's
	Dir        string            `json:"dir,omitempty"`        // absolute; "" is the image's
	TTY        bool              `json:"tty,omitempty"`
	Stdin      bool              `json:"stdin,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	DiskDriver Driver            `json:"diskDriver,omitempty"` // "" selects one
	Accel      vmm.Accel         `json:"accel,omitempty"`      // "" is KVM if it works, else TCG
	Restart    Restart           `json:"restart,omitzero"`
}

// FromAPI returns the configuration that a request to create a machine asks for. It
// does not validate it.
func FromAPI(r api.CreateRequest) Config {
	c := r.Config
	return Config{
		Name: r.Name, Hostname: c.Hostname, CPUs: c.CPUs, Memory: c.Memory, DiskSize: c.DiskSize, DiskDriver: Driver(c.DiskDriver),
		Model: vmm.Model(c.Model), Init: InitChoice(c.Init), Accel: vmm.Accel(c.Accel), ReadOnly: c.ReadOnly,
		Entrypoint: c.Entrypoint, Args: c.Args, Env: c.Env, User: c.User, Dir: c.Dir, TTY: c.TTY, Stdin: c.Stdin,
		Labels: c.Labels, Restart: Restart{Policy: RestartPolicy(c.Restart.Policy), Retries: c.Restart.Retries},
	}
}

// An InputError reports a request that no machine can fulfil.
type InputError struct{ msg string }

func (e *InputError) Error() string { return e.msg }

// Errorf returns an *InputError.
func Errorf(format string, args ...any) error { return &InputError{fmt.Sprintf(format, args...)} }

// Validate returns an *InputError if no machine can be made as c asks. A
// field with its zero value is valid: it stands for the default. remove
// reports whether the machine is to be removed when it ends.
func Validate(c *Config, remove bool) error {
	for _, check := range []func(*Config) error{checkNames, checkSize, checkWords, checkCommand, checkRestart} {
		if err := check(c); err != nil {
			return err
		}
	}
	if remove && c.Restart.Policy != "" && c.Restart.Policy != RestartNo {
		return Errorf("restart policy %s: a machine that is removed when it ends cannot be started again; leave out one of the two", c.Restart.Policy)
	}
	return nil
}

func checkNames(c *Config) error {
	if c.Name != "" {
		if err := CheckName(c.Name); err != nil {
			return err
		}
	}
	if c.Hostname != "" && (!nameForm.MatchString(c.Hostname) || strings.Contains(c.Hostname, "_")) {
		return Errorf("hostname %q: want letters, digits, '.' and '-', at most 63", c.Hostname)
	}
	if _, ok := c.Labels[""]; ok {
		return Errorf("label %q: want KEY=VALUE", "="+c.Labels[""])
	}
	return nil
}

// Size returns n bytes in the largest unit that shows them exactly, such as 1536 MiB.
func Size(n int64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	unit := 0
	for n != 0 && n%1024 == 0 && unit < len(units)-1 {
		n /= 1024
		unit++
	}
	return fmt.Sprintf("%d %s", n, units[unit])
}

// MaxDiskSize is the largest size of a machine's disk, in bytes: that of an image's
// disk. The guest grows its file system during the boot, group by group. Under
// emulation that takes 8 s for 1 TiB and a minute for 2 TiB; a disk of 20 TiB does
// not boot within 5 minutes.
const MaxDiskSize = 2 << 40

func checkSize(c *Config) error {
	switch {
	case c.CPUs < 0 || c.CPUs > MaxCPUs:
		return Errorf("%d processors: want 1 to %d", c.CPUs, MaxCPUs)
	case c.Memory != 0 && c.Memory < MinMemory:
		return Errorf("memory of %s: want %s or more", Size(c.Memory), Size(MinMemory))
	case c.Memory%(1<<20) != 0:
		return Errorf("memory of %s: want a multiple of 1 MiB", Size(c.Memory))
	case c.DiskSize%sectorSize != 0:
		return Errorf("disk size of %s: want a multiple of %d bytes", Size(c.DiskSize), sectorSize)
	case c.ReadOnly && c.DiskSize != 0:
		return Errorf("a read-only disk cannot have another size")
	case c.DiskSize < 0:
		return Errorf("disk size %d is negative", c.DiskSize)
	case c.DiskSize > MaxDiskSize:
		return Errorf("disk size of %s: want %s at most", Size(c.DiskSize), Size(MaxDiskSize))
	}
	return nil
}

// checkWords checks the fields that hold one word of a few.
func checkWords(c *Config) error {
	for _, f := range []struct{ name, value, words string }{
		{"machine model", string(c.Model), string(vmm.MicroVM + " " + vmm.Q35)},
		{"init", string(c.Init), string(InitAuto + " " + InitImage + " " + InitBanger)},
		{"accel", string(c.Accel), string(vmm.KVM + " " + vmm.TCG)},
		{"disk driver", string(c.DiskDriver), string(Auto + " " + Reflink + " " + Overlay + " " + DM + " " + Copy)},
		{"restart policy", string(c.Restart.Policy), string(RestartNo + " " + RestartOnFailure + " " + RestartAlways + " " + RestartUnlessStopped)},
	} {
		words := strings.Fields(f.words)
		if f.value != "" && !slices.Contains(words, f.value) {
			last := len(words) - 1
			return Errorf("%s %q: want %s or %s", f.name, f.value, strings.Join(words[:last], ", "), words[last])
		}
	}
	return nil
}

// checkCommand checks the fields that become the arguments of execve(2),
// whose strings end at a NUL byte.
func checkCommand(c *Config) error {
	if c.Dir != "" && !strings.HasPrefix(c.Dir, "/") {
		return Errorf("working directory %q: want an absolute path", c.Dir)
	}
	for _, variable := range c.Env {
		name, _, _ := strings.Cut(variable, "=")
		if name == "" || strings.ContainsAny(name, " \t") || strings.ContainsRune(variable, 0) {
			return Errorf("environment variable %q: want NAME=VALUE or NAME, without a NUL byte and without space in NAME", variable)
		}
	}
	words := append([]string{c.User, c.Dir}, c.Args...)
	if c.Entrypoint != nil {
		words = append(words, *c.Entrypoint)
	}
	for _, word := range words {
		if strings.ContainsRune(word, 0) {
			return Errorf("%q has a NUL byte: a command, its user and its directory cannot have one", word)
		}
	}
	return nil
}

func checkRestart(c *Config) error {
	switch r := c.Restart; {
	case r.Retries < 0:
		return Errorf("restart policy %s with %d retries: want 0 or more", r.Policy, r.Retries)
	case r.Retries != 0 && r.Policy != RestartOnFailure:
		return Errorf("restart policy %s with %d retries: only %s has a number of retries", OrDefault(r.Policy, RestartNo), r.Retries, RestartOnFailure)
	}
	return nil
}

// SetDefaults replaces the zero values in c by the defaults, and makes a name
// up if there is none.
func (c *Config) SetDefaults() {
	c.Name = OrDefault(c.Name, NewName())
	c.Hostname = OrDefault(c.Hostname, strings.NewReplacer("_", "-", ".", "-").Replace(c.Name))
	c.CPUs = OrDefault(c.CPUs, DefaultCPUs)
	c.Memory = OrDefault(c.Memory, DefaultMemory)
	c.Model = OrDefault(c.Model, vmm.MicroVM)
	c.Init = OrDefault(c.Init, InitAuto)
	if c.DiskDriver == Auto {
		c.DiskDriver = ""
	}
}

// OrDefault returns value, or otherwise if value is the zero value.
func OrDefault[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}
