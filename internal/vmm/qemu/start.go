package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/banger-vm/banger/internal/vmm"
)

// Start starts cfg and returns when QEMU runs it: an error that QEMU finds in
// its configuration is Start's. ctx bounds Start alone. The machine belongs to
// the caller, who ends it and waits for it.
//
// The kernel kills QEMU when this process ends, in whatever way.
//
// QEMU leads a session of its own, so that a terminal's signals do not reach
// it. Started by root, it runs as a user of its own
// that owns nothing.
func (m Monitor) Start(ctx context.Context, cfg vmm.Config) (*Machine, error) {
	machine, err := m.start(ctx, &cfg)
	if err != nil {
		return nil, fmt.Errorf("start machine: %w", err)
	}
	return machine, nil
}

func (m Monitor) start(ctx context.Context, cfg *vmm.Config) (*Machine, error) {
	program, err := m.program()
	if err != nil {
		return nil, err
	}
	tsc, err := hostTSC()
	if err != nil {
		return nil, err
	}
	args, err := arguments(cfg, tsc)
	if err != nil {
		return nil, err
	}
	cred, err := m.credential(cfg)
	if err != nil {
		return nil, err
	}
	files, err := openFiles(ctx, cfg, cred != nil)
	defer files.close() // QEMU has its own by then
	if err != nil {
		return nil, err
	}
	machine := &Machine{dir: cfg.Dir, agent: cfg.AgentPort != "", done: make(chan struct{})}
	machine.cmd = machine.command(ctx, program, args, cfg.Env)
	machine.cmd.ExtraFiles = files.inherited
	machine.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: cred, Pdeathsig: syscall.SIGKILL}
	return machine, machine.run(ctx, cfg, files)
}

func (m Monitor) credential(cfg *vmm.Config) (*syscall.Credential, error) {
	if cfg.Accel == vmm.KVM {
		return credential(m.kvm())
	}
	return credential("")
}

func (m *Machine) command(ctx context.Context, program string, args, env []string) *exec.Cmd {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, args...)
	cmd.Env = append(environment(), env...)
	cmd.Dir = "/" // QEMU's user may not enter the machine's folder, and nothing is to be written
	cmd.Stderr = &m.stderr
	cmd.WaitDelay = time.Second // should somebody else hold standard error open
	return cmd
}

// run starts the process and waits until it is ready. After an error there is
// neither a process nor a goroutine.
func (m *Machine) run(ctx context.Context, cfg *vmm.Config, files *files) error {
	var control, console net.Conn
	control, err := dial(ctx, cfg.Dir, qmpSocket)
	if err != nil {
		return err
	}
	console, err = dial(ctx, cfg.Dir, consoleSocket)
	if err != nil {
		hangUp(control)
		return err
	}
	m.qmp = newQMP(control)
	m.console.Add(1)
	go m.copyConsole(cfg.Console, console)
	started := make(chan error, 1)
	go m.own(started)
	err = <-started
	files.close() // now the end of the process is the end of its connections
	if err != nil {
		<-m.done
		return err
	}
	if err = m.ready(ctx); err == nil {
		return nil
	}
	return m.abandon(ctx, err)
}

// abandon ends a process that did not get ready and says why: by its own last
// words where it ended by itself.
func (m *Machine) abandon(ctx context.Context, err error) error {
	if errors.Is(err, errClosed) {
		const grace = 5 * time.Second // between the end of its connections and its own
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-m.done:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if killErr := m.Kill(); killErr != nil {
		return killErr
	}
	if m.err != nil {
		return m.err
	}
	return err
}

// files are what QEMU inherits.
type files struct{ inherited []*os.File }

func (f *files) close() {
	for _, file := range f.inherited {
		file.Close() // again where it is closed already: no harm
	}
}

func (f *files) add(file *os.File, err error) error {
	if err == nil {
		f.inherited = append(f.inherited, file)
	}
	return err
}

// openFiles opens all that QEMU inherits, in the order of its descriptors.
// What it opened is returned in any case.
func openFiles(ctx context.Context, cfg *vmm.Config, others bool) (*files, error) {
	f := &files{}
	for _, path := range []string{cfg.Kernel, cfg.Initrd} {
		if err := f.add(openBoot(path, others)); err != nil {
			return f, err
		}
	}
	for _, name := range Sockets() {
		if err := f.add(listen(ctx, cfg.Dir, name)); err != nil {
			return f, err
		}
	}
	for _, d := range cfg.Disks {
		if err := f.add(openDisk(d)); err != nil {
			return f, err
		}
		if d.Backing == "" {
			continue
		}
		if err := f.add(openDisk(vmm.Disk{Path: d.Backing, ReadOnly: true})); err != nil {
			return f, err
		}
	}
	return f, nil
}
