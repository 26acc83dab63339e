package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/machine"
	"github.com/banger-vm/banger/internal/machine/control"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/spec"
	"github.com/banger-vm/banger/internal/vmm"
)

// A converter converts between the types of packages api and machine. It finds the
// images and kernels that requests name.
type converter struct {
	Config
	started time.Time // when the daemon started
}

// createOptions returns the options for the machine that a request describes. The
// error is a *spec.InputError, or it has the code api.CodeNoImage or
// api.CodeNoKernel if this host does not have the image or the kernel.
func (c *converter) createOptions(r api.CreateRequest) (machine.Options, error) {
	config := spec.FromAPI(r)
	if err := spec.Validate(&config, r.Remove); err != nil {
		return machine.Options{}, err
	}
	img, err := c.image(r.Image)
	if err != nil {
		return machine.Options{}, err
	}
	kernel, err := c.kernel(r.Kernel)
	if err != nil {
		return machine.Options{}, err
	}
	name := r.ImageName
	if name == "" {
		name = r.Image
	}
	return machine.Options{
		Image: img, DiskPath: c.Images.DiskPath(img), Kernel: kernel.ID, ImageName: name, Remove: r.Remove, Config: config,
	}, nil
}

// launch returns the options for the start that a request describes. The error has
// the code api.CodeNoKernel if this host does not have the kernel.
func (c *converter) launch(r api.StartRequest) (control.Launch, error) {
	if err := spec.Validate(&spec.Config{Accel: vmm.Accel(r.Accel)}, false); err != nil {
		return control.Launch{}, err
	}
	l := control.Launch{Supervisor: c.Supervisor, Accel: vmm.Accel(r.Accel), Attach: r.Attach, Console: r.Console, TTY: r.TTY}
	if r.Kernel == "" {
		return l, nil
	}
	k, err := c.kernel(r.Kernel)
	if err == nil {
		l.Kernel = k.ID
	}
	return l, err
}

// image returns the image that a request names.
func (c *converter) image(ref string) (*store.Image, error) {
	img, err := c.Images.Find(ref, pull.CanonicalNames(ref)...)
	if errors.Is(err, store.ErrNotFound) || err == nil && !c.Images.HasDisk(img) {
		return nil, &api.Error{Code: api.CodeNoImage, Message: "image " + ref + ": not on this host"}
	}
	if several, ok := errors.AsType[*store.AmbiguousError](err); ok {
		return nil, invalid("%v", several)
	}
	return img, err
}

// kernel returns the kernel that a request names, or the default kernel for "".
func (c *converter) kernel(ref string) (*kernel.Kernel, error) {
	if ref == "" {
		ref = kernel.DefaultName
	}
	k, err := c.Kernels.Find(ref)
	if errors.Is(err, kernel.ErrNotFound) {
		return nil, &api.Error{Code: api.CodeNoKernel, Message: "kernel " + ref + ": not on this host"}
	}
	if several, ok := errors.AsType[*kernel.AmbiguousError](err); ok {
		return nil, invalid("%v", several)
	}
	return k, err
}

// defaultGrace is how long a main command may take to end after its stop signal if
// the request has no timeout.
const defaultGrace = 10 * time.Second

// maxGrace is the longest timeout that a request may have.
const maxGrace = 24 * time.Hour

// stopGrace returns how long the main command may take to end after its stop
// signal.
func stopGrace(r api.StopRequest) (time.Duration, error) {
	if r.Timeout == nil {
		return defaultGrace, nil
	}
	if *r.Timeout < 0 || *r.Timeout > int(maxGrace/time.Second) {
		return 0, invalid("timeout of %d seconds: want 0 to %d", *r.Timeout, maxGrace/time.Second)
	}
	return time.Duration(*r.Timeout) * time.Second, nil
}

// machine returns a machine as the protocol describes it.
func (c *converter) machine(rec *record.Record) api.Machine {
	folder := c.Machines.Folder(rec.ID)
	config := &rec.Config
	pid := 0
	if isRunning(rec) {
		pid = c.Machines.SupervisorPID(rec)
	}
	return api.Machine{
		ID: rec.ID, Name: config.Name, State: api.State(rec.State), Image: string(rec.Image), ImageName: rec.ImageName,
		Kernel: string(rec.Kernel), Init: string(rec.Plan.Init), Command: append([]string{}, rec.Plan.Words()...), Disk: disk(rec, folder), Remove: rec.Remove,
		Created: rec.Created, Started: rec.Started, Finished: rec.Finished, ExitCode: rec.ExitCode, Error: rec.Error,
		Restarts: rec.Restarts, PID: pid, Folder: folder,
		Config: api.Config{
			Hostname: config.Hostname, CPUs: config.CPUs, Memory: config.Memory, DiskSize: config.DiskSize, DiskDriver: string(config.DiskDriver),
			Model: string(config.Model), Init: string(config.Init), Accel: string(config.Accel), ReadOnly: config.ReadOnly,
			Entrypoint: config.Entrypoint, Args: config.Args, Env: config.Env, User: config.User, Dir: config.Dir, TTY: config.TTY, Stdin: config.Stdin,
			Labels: config.Labels, Restart: api.Restart{Policy: string(config.Restart.Policy), Retries: config.Restart.Retries},
		},
	}
}

// isRunning reports whether a machine has a supervisor according to its record.
func isRunning(rec *record.Record) bool { return rec.State == record.StateRunning }

// disk returns the disk of a machine, or the zero Disk if the machine has none yet.
func disk(rec *record.Record, folder string) api.Disk {
	d := rec.Disk
	if d.File == "" {
		return api.Disk{}
	}
	return api.Disk{Driver: string(d.Driver), Path: filepath.Join(folder, d.File), Size: d.Size, Why: d.Why}
}

// info returns the properties of this daemon.
func (c *converter) info(records []*record.Record) api.Info {
	info := api.Info{
		API: api.Version, Version: c.Version, PID: os.Getpid(), DataRoot: c.DataRoot, Started: c.started, Machines: len(records),
	}
	for _, rec := range records {
		if isRunning(rec) {
			info.Running++
		}
	}
	return info
}
