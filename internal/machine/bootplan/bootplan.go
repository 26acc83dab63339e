// Package bootplan decides from an image and a machine's configuration which
// programs run in the machine. It checks in the image that the first of them
// can run. It reads the disk of an untrusted image within bounds, and changes
// nothing.
package bootplan

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/guest"
	ext4 "github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/machine/spec"
)

// ErrNotBootable reports that an image cannot run with the configuration of the
// machine. The error's text gives the reason.
var ErrNotBootable = errors.New("image cannot run")

func notBootable(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrNotBootable}, args...)...)
}

// A Plan names the programs that run in a machine.
type Plan struct {
	Init     guest.Init     `json:"init"`
	InitArgs []string       `json:"initArgs,omitempty"` // command line of the image's init
	Main     *guest.Command `json:"main,omitempty"`     // nil if only the image's init runs
	Volumes  []string       `json:"volumes,omitempty"`  // the image's volumes that its layers lack
	Overlay  bool           `json:"overlay,omitempty"`  // the root file system is read-only and lacks folders that the machine needs
}

// Words returns the command line that a list of machines shows.
func (p *Plan) Words() []string {
	if p.Main != nil {
		return p.Main.Args
	}
	return p.InitArgs
}

// inits are the usual paths of an image's init, the best known first.
var inits = []string{"/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/sbin/openrc-init", "/init"}

// New returns the plan for a machine with the configuration c. disk is the path
// of the image's disk. The error is ErrNotBootable or a *NoCommandError if the
// image cannot run, and an *spec.InputError if c asks for settings of a command
// and only the image's init runs.
func New(img *store.Image, disk string, c *spec.Config) (*Plan, error) {
	if err := checkArch(img.Platform); err != nil {
		return nil, err
	}
	f, err := os.Open(disk)
	if err != nil {
		return nil, fmt.Errorf("open image disk: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open image disk: %w", err)
	}
	fs, err := ext4.Open(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("open image disk: %w", err)
	}
	root := imageRoot{fs}
	plan, err := newPlan(root, img, c)
	if err != nil {
		return plan, err
	}
	return plan, plan.addFolders(root, img, c)
}

// newPlan returns the plan without the folders to create.
func newPlan(root imageRoot, img *store.Image, c *spec.Config) (*Plan, error) {
	cmd := command(c, &img.Config)
	if cmd.StopSignal != "" {
		if _, err := guest.ParseSignal(cmd.StopSignal); err != nil {
			return nil, notBootable("its stop signal: %w", err)
		}
	}
	isInit := len(cmd.Args) > 0 && slices.Contains(inits, cmd.Args[0])
	switch {
	case c.Init == spec.InitImage || c.Init == spec.InitAuto && isInit:
		return planImageInit(root, c, cmd, isInit)
	case len(cmd.Args) == 0:
		return nil, notBootable("it has neither an entrypoint nor a command, and none was given")
	}
	cmd.Main = true
	byImage := c.Entrypoint == nil && (len(c.Args) == 0 || len(img.Config.Entrypoint) > 0)
	return &Plan{Init: guest.InitBanger, Main: &cmd}, root.checkCommand(&cmd, byImage)
}

// planImageInit returns the plan for a machine whose process 1 is the image's
// init. isInit reports whether cmd is the command line of that init. If it is
// not, and the user gave the command, it runs when the machine is up.
func planImageInit(root imageRoot, c *spec.Config, cmd guest.Command, isInit bool) (*Plan, error) {
	plan := &Plan{Init: guest.InitImage, InitArgs: cmd.Args}
	if !isInit {
		at := slices.IndexFunc(inits, func(p string) bool { _, err := root.lookup(p); return err == nil })
		if at < 0 {
			return nil, notBootable("it has no init of its own (looked for %s)", strings.Join(inits, ", "))
		}
		plan.InitArgs = []string{inits[at]}
		if len(c.Args) > 0 || c.Entrypoint != nil && *c.Entrypoint != "" {
			cmd.Main = true
			plan.Main = &cmd
			return plan, root.checkCommand(&cmd, false)
		}
	}
	if setting := commandSetting(c); setting != "" {
		return nil, spec.Errorf("%s is for a command, and here the image's init is all that runs", setting)
	}
	if !isInit {
		return plan, nil // root.lookup has found it
	}
	cmd.User, cmd.Dir = "", ""
	return plan, root.checkCommand(&cmd, false)
}

// checkArch returns ErrNotBootable if an image's platform is not the host's. An
// image may have no platform.
func checkArch(platform string) error {
	arch := platform
	if parts := strings.Split(platform, "/"); len(parts) > 1 {
		arch = parts[1]
	}
	if arch != runtime.GOARCH && platform != "" {
		return notBootable("it is for %s and this host is linux/%s", platform, runtime.GOARCH)
	}
	return nil
}
