package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/client"
	"github.com/banger-vm/banger/internal/guest/link"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/qemu"
)

// bootLimit is the time that a machine may take from its start to an answer of
// its agent: many times the time that emulation on a busy host needs.
const bootLimit = 2 * time.Minute

// endLimit is the time that a machine may take to power off after the end of
// its main command.
const endLimit = 20 * time.Second

// bootConfig has the parts of a boot that do not come from the record.
type bootConfig struct {
	kernel  *kernel.Kernel
	accel   vmm.Accel // "" is KVM if it works, else TCG
	cache   string    // folder for the initramfs and for the results of probes of the host
	monitor qemu.Monitor
	console io.Writer    // gets the output of the console
	output  io.Writer    // gets it instead if the image's init is all that runs
	notice  func(string) // takes remarks for the user
	phase   func(string) // is called when a step of the boot is done
	pauses  func(string) // takes remarks about pauses, as long as the machine runs
}

// An instance is one boot of a machine, from the start of its monitor to the
// end of it. Its methods may be called from different goroutines.
type instance struct {
	record *record.Record
	files  bool // it boots only for its files

	journal *record.Journal
	dir     *record.Folder
	console *console
	monitor *qemu.Machine
	session *link.Session
	agent   *client.Client
	ssh     *sshForwarder

	paused   pause
	watching sync.WaitGroup // the goroutine that follows the pauses
}

// boot starts the monitor and waits for the agent.
func (m *instance) boot(ctx context.Context, c *bootConfig) error {
	cfg, keys, err := m.prepare(ctx, c)
	if err != nil {
		return err
	}
	root, err := m.record.Disk.Attach(ctx, m.journal.Maker, m.dir.Data)
	if err != nil {
		return err
	}
	cfg.Disks = append([]vmm.Disk{root}, cfg.Disks...)
	c.phase("initramfs made")
	if err := m.startMonitor(ctx, c, cfg); err != nil {
		return err
	}
	m.watching.Go(func() { m.watchPause(m.monitor, c.pauses) })
	c.phase("monitor started (" + string(cfg.Accel) + ")")
	if err := m.connect(ctx, keys); err != nil {
		return err
	}
	c.phase("agent answers")
	return nil
}

// startMonitor enters the monitor's process in the machine's ledger and starts
// it.
func (m *instance) startMonitor(ctx context.Context, c *bootConfig, cfg *vmm.Config) (err error) {
	return m.journal.Maker.Process(ctx, record.MonitorEntry, func(mark string) (int, error) {
		cfg.Env = []string{mark}
		if m.monitor, err = c.monitor.Start(ctx, *cfg); err != nil {
			return 0, err
		}
		return m.monitor.PID(), nil
	})
}

// connect waits until the agent answers, or the machine ends.
func (m *instance) connect(ctx context.Context, keys client.Keys) error {
	limited, cancel := context.WithTimeout(ctx, bootLimit)
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
		if err := m.pauseError(0); err != nil {
			return fmt.Errorf("boot machine: no answer within %v: %w", bootLimit, err)
		}
		return fmt.Errorf("boot machine: no answer within %v; the console ends with: %s", bootLimit, m.console.trouble())
	}
	return m.because(err)
}

// dial connects to the agent and opens the socket that leads to its SSH server.
func (m *instance) dial(ctx context.Context, keys client.Keys) error {
	conn, err := m.monitor.DialAgent(ctx)
	if err != nil {
		return fmt.Errorf("connect to agent: %w", err)
	}
	if m.session, err = link.Connect(ctx, conn); err != nil {
		return fmt.Errorf("connect to agent: %w", err) // link.Connect has closed conn
	}
	stream, err := m.session.Open(ctx)
	if err != nil {
		return fmt.Errorf("connect to agent: %w", err)
	}
	if m.agent, err = client.New(ctx, stream, keys); err != nil {
		return fmt.Errorf("connect to agent: %w", err)
	}
	m.ssh, err = forwardSSH(m.dir.Runtime, m.session, keys)
	return err
}

// bootError returns the reason for the end of a machine that should not have
// ended.
func (m *instance) bootError() error {
	err := m.monitor.Wait()
	if reason := m.paused.lasting(0); reason != "" {
		return errors.Join(fmt.Errorf("machine ended while it was paused (%s)", reason), err)
	}
	if why := m.console.trouble(); why != "" {
		return errors.Join(fmt.Errorf("machine ended: %s", why), err)
	}
	if err == nil {
		err = errors.New("its monitor gave no reason")
	}
	return fmt.Errorf("machine ended: %w", err)
}

// hasMain reports whether there is a main command to run. There is none if the
// image's init is all that runs.
func (m *instance) hasMain() bool { return m.record.Plan.Main != nil }

// startMain starts the main command.
func (m *instance) startMain(ctx context.Context, io client.Stdio) (*client.Process, error) {
	p, err := m.agent.Start(ctx, *m.record.Plan.Main, io)
	if err != nil {
		return nil, m.because(fmt.Errorf("start command: %w", err))
	}
	return p, nil
}

// because returns the reason for the machine's end, if it ends, in the place of
// err, which reports a broken connection.
func (m *instance) because(err error) error {
	if violation := m.violation(); violation != nil {
		return violation
	}
	const delay = 3 * time.Second // from the end of the connection to the end of the process
	select {
	case <-m.monitor.Done():
		return m.bootError()
	case <-time.After(delay):
		return err
	}
}

// violation returns an error if the connection to the agent has ended because the
// guest has violated its protocol.
func (m *instance) violation() error {
	var err error
	if m.agent != nil {
		err = m.agent.Violation()
	}
	if m.session != nil {
		select {
		case <-m.session.Done():
			err = errors.Join(m.session.Violation(), err)
		default:
		}
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("agent protocol violated: %w", err)
}

// waitMain returns how the main command ended. It returns an error if the
// machine ends before its command.
func (m *instance) waitMain(p *client.Process) (client.Exit, error) {
	exit, err := p.Wait()
	if err != nil {
		return exit, m.because(fmt.Errorf("wait for command: %w", err))
	}
	return exit, nil
}

// waitEnd waits until the machine has powered off by itself. It returns an
// error if the guest failed.
func (m *instance) waitEnd() error {
	<-m.monitor.Done()
	// QEMU also exits in order when the kernel panics or the guest program fails.
	if err := m.monitor.Wait(); err != nil || m.console.failure() != "" {
		return m.bootError()
	}
	return nil
}

// stop sends the main command its stop signal, and SIGKILL after grace; then
// the machine powers off. If the machine does not, or stands still for all of the
// grace, stop kills it.
func (m *instance) stop(ctx context.Context, grace time.Duration) error {
	select {
	case <-m.monitor.Done():
		return nil
	default:
	}
	if !m.awaitResume(grace) {
		return m.kill()
	}
	limited, cancel := context.WithTimeout(ctx, grace+endLimit)
	defer cancel()
	if err := m.agent.PowerOff(limited, grace); err != nil {
		return m.kill()
	}
	select {
	case <-m.monitor.Done():
		return nil
	case <-limited.Done():
		return m.kill()
	}
}

// kill ends the machine at once, as pulling the plug would.
func (m *instance) kill() error { return m.monitor.Kill() }

// waitDown waits until the guest has powered off, so that its disk is
// consistent. A guest does not power off by itself if process 1 is the image's
// init, which does not know of the main command. It may not either if the wait
// for the command failed. waitDown stops it then.
func (m *instance) waitDown(ctx context.Context, failed bool) error {
	if !failed && m.record.Plan.Init != guest.InitImage {
		select {
		case <-m.monitor.Done():
			return nil
		case <-time.After(endLimit):
		}
	}
	return m.stop(ctx, endLimit)
}

// close closes the connections and ends the monitor's process.
func (m *instance) close() error {
	var errs []error
	if m.ssh != nil {
		errs = append(errs, m.ssh.close())
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
	m.watching.Wait()
	if m.console != nil {
		errs = append(errs, m.console.close())
	}
	return errors.Join(errs...)
}

// guestConfig returns the configuration that the guest program reads.
func (m *instance) guestConfig(keys client.Keys, modules []string) guest.Config {
	return guest.Config{
		Version: guest.Version, Hostname: m.record.Config.Hostname, Init: m.record.Plan.Init, InitArgs: m.record.Plan.InitArgs,
		ReadOnly: m.record.Config.ReadOnly, Overlay: m.record.Plan.Overlay, Folders: m.folders(), Modules: modules,
		FilesOnly: m.files,
		HostKey:   keys.HostPrivate, ClientKeys: []string{keys.ClientPublic},
	}
}

// folders returns the folders that the guest program creates: the image's
// volumes and the working directory of the machine's commands.
func (m *instance) folders() []string {
	dirs := slices.Clone(m.record.Plan.Volumes)
	if dir := m.record.Exec.Dir; dir != "" {
		dirs = append(dirs, path.Join("/", dir))
	}
	return dirs
}
