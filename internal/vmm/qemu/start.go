package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"syscall"
	"time"

	"github.com/banger-vm/banger/internal/vmm"
)

// Start starts a machine and returns when QEMU runs it. It returns the errors
// that QEMU finds in its configuration. ctx limits only Start. The caller owns
// the machine: it must end it and wait for it.
//
// The kernel kills QEMU when this process ends for any reason. QEMU leads a
// session of its own, so the signals of a terminal do not reach it. If root
// starts it, it runs as a user of its own that owns nothing. Package confine
// keeps it from the files, sockets and processes of its user.
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
	defer files.close() // QEMU has its own copies by then
	if err != nil {
		return nil, err
	}
	restrict, err := m.confinement(program, cfg, files)
	if err != nil {
		return nil, err
	}
	machine := &Machine{dir: cfg.Dir, agent: cfg.AgentPort != "", done: make(chan struct{}), confine: restrict}
	machine.cmd = machine.command(ctx, program, args, cfg.Env)
	machine.cmd.ExtraFiles = files.inherited
	machine.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: cred, Pdeathsig: syscall.SIGKILL}
	return machine, m.explainStart(program, machine.run(ctx, cfg, files))
}

func (m Monitor) credential(cfg *vmm.Config) (*syscall.Credential, error) {
	if cfg.Accel == vmm.KVM {
		return credential(m.kvmDevice())
	}
	return credential("")
}

func (m *Machine) command(ctx context.Context, program string, args, env []string) *exec.Cmd {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, args...)
	cmd.Env = append(environment(), env...)
	cmd.Dir = "/" // QEMU's user may not enter the machine's folder, and must not write anything there
	cmd.Stderr = &m.stderr
	cmd.WaitDelay = time.Second // another process may hold standard error open
	return cmd
}

// run starts the process and waits until it is ready. If it fails, it leaves
// neither a process nor a goroutine.
func (m *Machine) run(ctx context.Context, cfg *vmm.Config, files *files) error {
	var control, console net.Conn
	control, err := dial(ctx, cfg.Dir, qmpSocket)
	if err != nil {
		return err
	}
	console, err = dial(ctx, cfg.Dir, consoleSocket)
	if err != nil {
		control.Close()
		return err
	}
	m.qmp = newQMP(control)
	m.console.Add(1)
	go m.copyConsole(cfg.Console, console)
	started := make(chan error, 1)
	go m.runProcess(started)
	err = <-started
	files.close() // from here on, QEMU's exit closes the connections
	if err != nil {
		<-m.done
		return err
	}
	if err = m.ready(ctx); err == nil {
		return nil
	}
	return m.abort(ctx, err)
}

// abort ends a process that is not ready. It returns the process's own error if
// the process ended by itself, and err otherwise.
func (m *Machine) abort(ctx context.Context, err error) error {
	if errors.Is(err, errClosed) {
		const grace = 5 * time.Second // between the end of the connections and that of the process
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
