package daemon

import (
	"os"
	"path/filepath"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/machine"
	"github.com/banger-vm/banger/internal/vmm"
)

// options returns what a request asks for, but for the image and the kernel.
func options(r api.CreateRequest) machine.Options {
	name := r.ImageName
	if name == "" {
		name = r.Image
	}
	c := r.Config
	driver := machine.Driver(c.DiskDriver)
	if driver == "auto" {
		driver = ""
	}
	return machine.Options{
		ImageName: name, Remove: r.Remove,
		Config: machine.Config{
			Name: r.Name, Hostname: c.Hostname, CPUs: c.CPUs, Memory: c.Memory, DiskSize: c.DiskSize, DiskDriver: driver,
			Model: vmm.Model(c.Model), Init: machine.InitChoice(c.Init), Accel: vmm.Accel(c.Accel), ReadOnly: c.ReadOnly,
			Entrypoint: c.Entrypoint, Args: c.Args, Env: c.Env, User: c.User, Dir: c.Dir, TTY: c.TTY, Stdin: c.Stdin,
			Labels: c.Labels, Restart: machine.Restart{Policy: machine.RestartPolicy(c.Restart.Policy), Retries: c.Restart.Retries},
		},
	}
}

// launch returns what a request asks for, but for the kernel.
func (s *server) launch(r api.StartRequest) machine.Launch {
	return machine.Launch{Supervisor: s.Supervisor, Accel: vmm.Accel(r.Accel), Attach: r.Attach, Console: r.Console, TTY: r.TTY}
}

func (s *server) machine(rec *machine.Record) api.Machine {
	folder := s.Machines.Folder(rec.ID)
	c := &rec.Config
	pid := 0
	if runs(rec) {
		pid = s.Machines.Supervisor(rec)
	}
	return api.Machine{
		ID: rec.ID, Name: c.Name, State: api.State(rec.State), Image: string(rec.Image), ImageName: rec.ImageName,
		Kernel: string(rec.Kernel), Command: append([]string{}, rec.Plan.Words()...), Disk: disk(rec, folder), Remove: rec.Remove,
		Created: rec.Created, Started: rec.Started, Finished: rec.Finished, ExitCode: rec.ExitCode, Error: rec.Error,
		Restarts: rec.Restarts, PID: pid, Folder: folder,
		Config: api.Config{
			Hostname: c.Hostname, CPUs: c.CPUs, Memory: c.Memory, DiskSize: c.DiskSize, DiskDriver: string(c.DiskDriver),
			Model: string(c.Model), Init: string(c.Init), Accel: string(c.Accel), ReadOnly: c.ReadOnly,
			Entrypoint: c.Entrypoint, Args: c.Args, Env: c.Env, User: c.User, Dir: c.Dir, TTY: c.TTY, Stdin: c.Stdin,
			Labels: c.Labels, Restart: api.Restart{Policy: string(c.Restart.Policy), Retries: c.Restart.Retries},
		},
	}
}

func disk(rec *machine.Record, folder string) api.Disk {
	d := rec.Disk
	if d.File == "" {
		return api.Disk{}
	}
	return api.Disk{Driver: string(d.Driver), Path: filepath.Join(folder, d.File), Size: d.Size, Why: d.Why}
}

func (s *server) info(records []*machine.Record) api.Info {
	info := api.Info{
		API: api.Version, Version: s.Version, PID: os.Getpid(), DataRoot: s.DataRoot, Started: s.started, Machines: len(records),
	}
	for _, rec := range records {
		if runs(rec) {
			info.Running++
		}
	}
	return info
}
