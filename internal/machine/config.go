package machine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/vmm"
)

// Defaults and bounds of a machine.
const (
	DefaultCPUs   = 1
	DefaultMemory = 512 << 20 // bytes
	MinMemory     = 128 << 20 // bytes: below it the kernel and its initramfs do not fit
	MaxCPUs       = 255       // KVM_MAX_VCPUS of the oldest kernels in use
)

// An InitChoice says what becomes process 1 of a machine.
type InitChoice string

// The choices, by the words of the command line.
const (
	InitAuto   InitChoice = "auto"   // the image's init where the command is one, else banger's
	InitImage  InitChoice = "image"  // the image's
	InitBanger InitChoice = "banger" // banger's guest program
)

// Config is what a machine is to be, as the user asks for it. The zero value
// runs the image's own command on the smallest machine.
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
	Args       []string          `json:"args,omitempty"`       // in place of the image's Cmd
	Env        []string          `json:"env,omitempty"`        // NAME=value over the image's, NAME to take one away
	User       string            `json:"user,omitempty"`       // "" is the image's
	Dir        string            `json:"dir,omitempty"`        // "" is the image's
	TTY        bool              `json:"tty,omitempty"`
	Stdin      bool              `json:"stdin,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	DiskDriver Driver            `json:"diskDriver,omitempty"` // "" picks one
	Accel      vmm.Accel         `json:"accel,omitempty"`      // "" takes KVM where it works
	Restart    Restart           `json:"restart,omitzero"`
}

// An InputError is a configuration that makes no sense.
type InputError struct{ msg string }

func (e *InputError) Error() string { return e.msg }

func inputf(format string, args ...any) error { return &InputError{fmt.Sprintf(format, args...)} }

// complete fills in the defaults and refuses what cannot be.
func (c *Config) complete() error {
	if c.Name == "" {
		c.Name = newName()
	}
	if err := checkName(c.Name); err != nil {
		return err
	}
	if c.Hostname == "" {
		c.Hostname = strings.NewReplacer("_", "-", ".", "-").Replace(c.Name)
	}
	if !nameForm.MatchString(c.Hostname) || strings.Contains(c.Hostname, "_") {
		return inputf("hostname %q: want letters, digits, '.' and '-', at most 63", c.Hostname)
	}
	c.CPUs = orDefault(c.CPUs, DefaultCPUs)
	c.Memory = orDefault(c.Memory, DefaultMemory)
	c.Model = orDefault(c.Model, vmm.MicroVM)
	c.Init = orDefault(c.Init, InitAuto)
	switch {
	case c.CPUs < 1 || c.CPUs > MaxCPUs:
		return inputf("%d processors: want 1 to %d", c.CPUs, MaxCPUs)
	case c.Memory < MinMemory:
		return inputf("memory of %d MiB: want %d MiB or more", c.Memory>>20, int64(MinMemory>>20))
	case c.Memory%(1<<20) != 0 || c.DiskSize%512 != 0:
		return inputf("memory of %d bytes, disk of %d: want multiples of 1 MiB and of 512 bytes", c.Memory, c.DiskSize)
	case c.ReadOnly && c.DiskSize != 0:
		return inputf("a read-only disk cannot have another size")
	case c.DiskSize < 0:
		return inputf("disk size %d is negative", c.DiskSize)
	case c.Model != vmm.MicroVM && c.Model != vmm.Q35:
		return inputf("machine model %q: want %s or %s", c.Model, vmm.MicroVM, vmm.Q35)
	case c.Init != InitAuto && c.Init != InitImage && c.Init != InitBanger:
		return inputf("init %q: want %s, %s or %s", c.Init, InitAuto, InitImage, InitBanger)
	}
	return nil
}

func orDefault[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// command joins what the user asks for with what the image says, by docker's
// rules: an entrypoint of the user's drops the image's Cmd, arguments take the
// place of Cmd, and a variable of the user's replaces the image's.
func (c *Config) command(img *store.Config) guest.Command {
	entrypoint, args := img.Entrypoint, img.Cmd
	if c.Entrypoint != nil {
		entrypoint, args = nil, nil
		if *c.Entrypoint != "" {
			entrypoint = []string{*c.Entrypoint}
		}
	}
	if len(c.Args) > 0 {
		args = c.Args
	}
	cmd := guest.Command{
		Args: append(append([]string{}, entrypoint...), args...),
		Env:  MergeEnv(append([]string{"HOSTNAME=" + c.Hostname}, img.Env...), c.Env),
		User: orDefault(c.User, img.User), Dir: orDefault(c.Dir, img.WorkingDir),
		StopSignal: img.StopSignal, Stdin: c.Stdin,
	}
	return cmd
}

// exec is what further commands in the machine start from.
func (c *Config) exec(img *store.Config) guest.Command {
	cmd := c.command(img)
	return guest.Command{Env: cmd.Env, User: cmd.User, Dir: cmd.Dir}
}

// forCommand names what the user asked for that only a command can have, or
// is "".
func (c *Config) forCommand() string {
	for _, row := range []struct {
		given bool
		name  string
	}{
		{len(c.Env) > 0, "an environment"}, {c.User != "", "a user"}, {c.Dir != "", "a working directory"},
		{c.Stdin, "standard input"}, {c.TTY, "a terminal"},
	} {
		if row.given {
			return row.name
		}
	}
	return ""
}

// MergeEnv returns base with the variables of more in the place of those of
// the same name, then the rest of more. A name without a value takes the
// variable away.
func MergeEnv(base, more []string) []string {
	var out []string
	at := map[string]int{}
	for _, v := range append(append([]string{}, base...), more...) {
		name, _, _ := strings.Cut(v, "=")
		if i, ok := at[name]; ok {
			out[i] = v
			continue
		}
		at[name] = len(out)
		out = append(out, v)
	}
	return slices.DeleteFunc(out, func(v string) bool { return !strings.Contains(v, "=") })
}
