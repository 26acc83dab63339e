package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/client"
	"github.com/banger-vm/banger/internal/guest/link"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/qemu"
)

// BootLimit is how long a machine may take from its start to an answer of its
// agent: many times what emulation on a busy host needs.
const BootLimit = 2 * time.Minute

// endLimit is how long a machine may take to power off once its main command
// has ended.
const endLimit = 20 * time.Second

// A Host is what a machine starts with besides its own folder.
type Host struct {
	Kernel  *kernel.Kernel
	Cache   string       // folder for initramfs and what was found out of the host
	Accel   vmm.Accel    // "" takes KVM where it runs
	Monitor qemu.Monitor // the zero value is the installed QEMU
	Console io.Writer    // watches the console; may be nil
	Out     io.Writer    // watches it in the place of Console where the image's init is all that runs; may be nil
	Notice  func(string) // remarks for the user; may be nil
	Phase   func(string) // told as each step of a boot is done; may be nil
	// Devices makes what else of the host the monitor needs before it starts,
	// each through the Maker; nil for nothing.
	Devices func(context.Context, resource.Maker) error
}

func (h *Host) phase(done string) {
	if h.Phase != nil {
		h.Phase(done)
	}
}

func (h *Host) notice(format string, args ...any) {
	if h.Notice != nil {
		h.Notice(fmt.Sprintf(format, args...))
	}
}

// A Machine is one that this process owns. Its methods may be called from
// different goroutines.
type Machine struct {
	Record *Record

	journal *journal
	dir     *folder
	console *console
	monitor *qemu.Machine
	session *link.Session
	agent   *client.Client
	door    *door
}

// boot starts the monitor and waits for the agent.
func (m *Machine) boot(ctx context.Context, h *Host) error {
	cfg, keys, err := m.prepare(ctx, h)
	if err != nil {
		return err
	}
	root, err := m.Record.Disk.attach(ctx, m.journal.maker, m.dir.data)
	if err != nil {
		return err
	}
	cfg.Disks = append([]vmm.Disk{root}, cfg.Disks...)
	h.phase("initramfs made")
	if err := m.startMonitor(ctx, h, cfg); err != nil {
		return err
	}
	h.phase("monitor started (" + string(cfg.Accel) + ")")
	if err := m.connect(ctx, keys); err != nil {
		return err
	}
	h.phase("agent answers")
	return nil
}

// startMonitor enters the monitor's process, and what it needs, in the
// machine's ledger.
func (m *Machine) startMonitor(ctx context.Context, h *Host, cfg *vmm.Config) (err error) {
	if h.Devices != nil {
		if err := h.Devices(ctx, m.journal.maker); err != nil {
			return err
		}
	}
	return m.journal.maker.Process(ctx, monitorPart, func(mark string) (int, error) {
		cfg.Env = []string{mark}
		if m.monitor, err = h.Monitor.Start(ctx, *cfg); err != nil {
			return 0, err
		}
		return m.monitor.PID(), nil
	})
}

// connect waits until the agent answers, or the machine ends.
func (m *Machine) connect(ctx context.Context, keys client.Keys) error {
	limited, cancel := context.WithTimeout(ctx, BootLimit)
	defer cancel()
	go func() {
		select {
		case <-m.monitor.Done():
			cancel()
		case <-limited.Done():
		}
	}()
	err := m.dial(limited, keys)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(limited.Err(), context.DeadlineExceeded):
		return fmt.Errorf("boot machine: no answer within %v; the console ends with: %s", BootLimit, m.console.trouble())
	}
	return m.because(err)
}

func (m *Machine) dial(ctx context.Context, keys client.Keys) error {
	conn, err := m.monitor.DialAgent(ctx)
	if err != nil {
		return fmt.Errorf("connect to agent: %w", err)
	}
	if m.session, err = link.Connect(ctx, conn); err != nil {
		return fmt.Errorf("connect to agent: %w", err) // conn is the session's, and closed
	}
	stream, err := m.session.Open(ctx)
	if err != nil {
		return fmt.Errorf("connect to agent: %w", err)
	}
	if m.agent, err = client.New(ctx, stream, keys); err != nil {
		return fmt.Errorf("connect to agent: %w", err)
	}
	m.door, err = openDoor(m.dir.runtime, m.session, keys)
	return err
}

// bootError says why a machine ended that should not have.
func (m *Machine) bootError() error {
	err := m.monitor.Wait()
	if why := m.console.trouble(); why != "" {
		return errors.Join(fmt.Errorf("machine ended: %s", why), err)
	}
	if err == nil {
		err = errors.New("without a word")
	}
	return fmt.Errorf("machine ended: %w", err)
}

// HasMain reports whether there is a main command to run. Where the image's
// init is all that runs there is none.
func (m *Machine) HasMain() bool { return m.Record.Plan.Main != nil }

// Main starts the main command. It is called once.
func (m *Machine) Main(ctx context.Context, io client.Stdio) (*client.Process, error) {
	p, err := m.agent.Start(ctx, *m.Record.Plan.Main, io)
	if err != nil {
		return nil, m.because(fmt.Errorf("start command: %w", err))
	}
	return p, nil
}

// because prefers the reason for a machine's end to what the end did to a
// connection.
func (m *Machine) because(err error) error {
	const settle = 3 * time.Second // from a refusal, or the end of the connection, to that of the process
	select {
	case <-m.monitor.Done():
		return m.bootError()
	case <-time.After(settle):
		return err
	}
}

// WaitMain returns how the main command ended. A machine that ends before
// its command has is an error.
func (m *Machine) WaitMain(p *client.Process) (client.Exit, error) {
	exit, err := p.Wait()
	if err != nil {
		return exit, m.because(fmt.Errorf("wait for command: %w", err))
	}
	return exit, nil
}

// WaitEnd waits until the machine has powered off by itself.
func (m *Machine) WaitEnd() error {
	<-m.monitor.Done()
	// A kernel that panics, and a guest program that gives up, end QEMU as
	// well as a machine that powers off.
	if err := m.monitor.Wait(); err != nil || m.console.failure() != "" {
		return m.bootError()
	}
	return nil
}

// Stop asks the machine to end: its main command gets its stop signal, and
// SIGKILL when grace has passed; then the machine powers off. A machine that
// does not is killed.
func (m *Machine) Stop(ctx context.Context, grace time.Duration) error {
	select {
	case <-m.monitor.Done():
		return nil
	default:
	}
	limited, cancel := context.WithTimeout(ctx, grace+endLimit)
	defer cancel()
	if err := m.agent.PowerOff(limited, grace); err != nil {
		return m.Kill()
	}
	select {
	case <-m.monitor.Done():
		return nil
	case <-limited.Done():
		return m.Kill()
	}
}

// Kill ends the machine at once, as pulling the plug would.
func (m *Machine) Kill() error { return m.monitor.Kill() }

// settle waits for a guest that is about to power off, so that its disk is
// whole. It is asked to where it does not do so by itself: the image's own
// init does not know that the main command has ended, and after an error on
// this side the command may go on.
func (m *Machine) settle(failed bool) error {
	if !failed && m.Record.Plan.Init != guest.InitImage {
		select {
		case <-m.monitor.Done():
			return nil
		case <-time.After(endLimit):
		}
	}
	return m.Stop(context.Background(), endLimit)
}

// hangUp ends the connections and the process.
func (m *Machine) hangUp() error {
	var errs []error
	if m.door != nil {
		errs = append(errs, m.door.close())
	}
	if m.agent != nil {
		m.agent.Close()
	}
	if m.session != nil {
		m.session.Close()
	}
	if m.monitor != nil {
		errs = append(errs, m.monitor.Kill())
	}
	if m.console != nil {
		errs = append(errs, m.console.close())
	}
	return errors.Join(errs...)
}

// guestConfig is what the guest is told.
func (m *Machine) guestConfig(keys client.Keys, modules []string) guest.Config {
	return guest.Config{
		Version: guest.Version, Hostname: m.Record.Config.Hostname, Init: m.Record.Plan.Init, InitArgs: m.Record.Plan.InitArgs,
		ReadOnly: m.Record.Config.ReadOnly, Modules: modules,
		HostKey: keys.HostPrivate, ClientKeys: []string{keys.ClientPublic},
	}
}
