package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/banger-vm/banger/internal/guest/client"
	"github.com/banger-vm/banger/internal/imagepull"
	"github.com/banger-vm/banger/internal/kernelcat"
	"github.com/banger-vm/banger/internal/rootfs"
	"github.com/banger-vm/banger/internal/store"
	"github.com/banger-vm/banger/internal/vm"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/spf13/cobra"
)

// The exit codes of run and exec that do not come from the command. 126 and
// 127 are those of vm.NoCommandError and of the guest.
const (
	exitTimeout = 124 // as timeout(1)
	exitOwn     = 125 // banger failed, as docker's
)

func (a *app) runCommand() *cobra.Command {
	var m machineFlags
	cmd := &cobra.Command{
		Use:   "run [FLAGS] IMAGE [COMMAND [ARG…]]",
		Short: "Run a command in a new machine",
		Long: "Run a command in a new machine made from an image, which is pulled if it is not\n" +
			"here. The exit code is the command's; 125 says that banger itself failed.\n\n" +
			"The first Ctrl-C goes to the command, the second asks the machine to stop, the\n" +
			"third kills it.",
		Example: `  banger run --rm debian:12 cat /etc/os-release
  banger run --rm -it --memory 2G --cpus 2 debian:12 bash
  echo hi | banger run --rm -i debian:12 cat`,
		Args: atLeastOne("IMAGE"), ValidArgsFunction: a.imageNames,
		RunE: func(cmd *cobra.Command, args []string) error { return ownFailure(a.run(cmd, &m, args)) },
	}
	m.register(cmd)
	m.registerRun(cmd)
	return cmd
}

// An exitError ends banger with a code and without a message.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// A codedError is an error with an exit code of its own.
type codedError struct {
	code int
	error
}

func (e *codedError) Unwrap() error { return e.error }

// ownFailure gives an error of run or exec its exit code: 126 or 127 where
// the command is the fault, 125 else. A wrong command line stays one.
func ownFailure(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[exitError](err); ok {
		return err
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return err
	}
	if _, ok := errors.AsType[*codedError](err); ok {
		return err
	}
	if input, ok := errors.AsType[*vm.InputError](err); ok {
		return usagef("%v", input)
	}
	if missing, ok := errors.AsType[*vm.NoCommandError](err); ok {
		return &codedError{missing.ExitCode(), err}
	}
	return &codedError{exitOwn, err}
}

func (a *app) run(cmd *cobra.Command, m *machineFlags, args []string) (err error) {
	conf, err := m.config(cmd, args[1:])
	if err != nil {
		return err
	}
	term, err := a.openTerminal(m.tty, m.interactive)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	machines, err := a.openMachines(ctx)
	if err != nil {
		return err
	}
	o, err := a.machineOptions(ctx, m, args[0], conf)
	if err != nil {
		return err
	}
	host, err := a.host(ctx, m.kernel, m.accel, m.pull)
	if err != nil {
		return err
	}
	signals := catchSignals()
	defer signals.stop()
	machine, err := machines.Start(ctx, o, host)
	if err != nil {
		return err
	}
	r := &running{app: a, machine: machine, signals: signals, term: term, timeout: m.timeout}
	return r.toTheEnd(ctx)
}

// toTheEnd runs the machine and closes it.
func (r *running) toTheEnd(ctx context.Context) error {
	// From here on signals are the machine's, and its end is ours to wait for.
	code, err := r.run(context.WithoutCancel(ctx))
	if err := errors.Join(err, r.machine.Close(code, err)); err != nil {
		if code == exitDone {
			code = exitOwn
		}
		return &codedError{code, err}
	}
	if code != 0 {
		return exitError(code)
	}
	return nil
}

// openMachines returns the store of machines, swept.
func (a *app) openMachines(ctx context.Context) (*vm.Store, error) {
	s, err := vm.Open(a.paths.Data, a.paths.Runtime)
	if err != nil {
		return nil, err
	}
	return s, s.Sweep(ctx)
}

// machineOptions gets the image, pulling it where that is wanted.
func (a *app) machineOptions(ctx context.Context, m *machineFlags, ref string, conf vm.Config) (vm.Options, error) {
	s, err := a.openStore()
	if err != nil {
		return vm.Options{}, err
	}
	img, err := a.imageFor(ctx, s, &m.read, ref, m.pull)
	if err != nil {
		return vm.Options{}, err
	}
	return vm.Options{Config: conf, Image: img, ImageName: ref, DiskPath: s.DiskPath(img), Remove: m.remove}, nil
}

// host gets the kernel that a machine starts with, where need be.
func (a *app) host(ctx context.Context, kernel, accel, policy string) (vm.Host, error) {
	k, err := a.kernelFor(ctx, kernel, policy)
	h := vm.Host{
		Kernel: k, Cache: a.paths.Cache, Accel: vmm.Accel(accel), Out: a.out,
		Notice: func(text string) { a.note("%s", text) },
	}
	if a.verbose {
		start := time.Now()
		h.Console = a.err
		h.Phase = func(done string) { a.note("%6.3fs %s", time.Since(start).Seconds(), done) }
	}
	return h, err
}

// imageFor finds an image or, where policy allows, pulls it.
func (a *app) imageFor(ctx context.Context, s *store.Store, b *buildFlags, ref, policy string) (*store.Image, error) {
	img, err := findImage(s, ref)
	if err == nil && policy != "always" && s.HasDisk(img) {
		return img, nil
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if policy == "never" {
		return nil, fmt.Errorf("image %s, which must not be pulled: %w", ref, store.ErrNotFound)
	}
	o, err := b.options(a, ref)
	if err != nil {
		return nil, err
	}
	p := a.startProgress()
	o.Report = p.event
	img, fresh, err := rootfs.Pull(ctx, s, ref, imagepull.CanonicalName(ref), o)
	p.close()
	if err == nil && fresh {
		a.noteWarnings(img.Warnings)
	}
	return img, err
}

// kernelFor finds a kernel or, where policy allows, gets it.
func (a *app) kernelFor(ctx context.Context, name, policy string) (*kernelcat.Kernel, error) {
	kernels, err := a.openKernels()
	if err != nil {
		return nil, err
	}
	if err := kernels.Sweep(ctx); err != nil {
		return nil, err
	}
	name = first(name, a.config.Kernel, kernelcat.DefaultName)
	k, err := kernels.Find(name)
	if err == nil || !errors.Is(err, kernelcat.ErrNotFound) || policy == "never" {
		return k, err
	}
	a.note("kernel %s is not here yet: getting it (once)", name)
	return a.pullKernel(ctx, kernels, name)
}

// running is a machine in the foreground.
type running struct {
	app     *app
	machine *vm.Machine
	signals *signals
	term    *terminal
	timeout time.Duration
}

// run returns the exit code of the machine's main command, or of banger where
// that failed.
func (r *running) run(ctx context.Context) (int, error) {
	if !r.machine.HasMain() {
		return r.waitInit(ctx)
	}
	streams := client.Stdio{Out: r.app.out, Err: r.app.err}
	if r.machine.Record.Config.Stdin {
		streams.In = r.app.in
	}
	restore, err := r.term.enter(&streams)
	if err != nil {
		return exitOwn, err
	}
	defer restore()
	p, err := r.machine.Main(ctx, streams)
	if err != nil {
		return exitOwn, err
	}
	var exit client.Exit
	return r.settle(ctx, p, func() error {
		exit, err = r.machine.WaitMain(p)
		return err
	}, &exit.Code)
}

// waitInit waits for a machine whose only command is the image's init.
func (r *running) waitInit(ctx context.Context) (int, error) {
	code := exitDone
	return r.settle(ctx, nil, r.machine.WaitEnd, &code)
}

// settle passes signals on until wait returns, and says which exit code that
// gives: *code where wait is content, and that of what made the machine end
// where the user or the time limit did.
func (r *running) settle(ctx context.Context, p *client.Process, wait func() error, code *int) (int, error) {
	done := make(chan struct{})
	c := r.conduct(ctx, done, p)
	err := wait()
	close(done)
	forced := <-c
	switch {
	case forced == exitTimeout:
		return forced, nil
	case err == nil:
		return *code, nil
	case forced != 0:
		return forced, nil
	}
	return exitOwn, err
}

func (a *app) startCommand() *cobra.Command {
	var kernel, accel string
	cmd := &cobra.Command{
		Use:   "start MACHINE",
		Short: "Boot a machine that has ended, with its disk as it is",
		Long: "Boot a machine that has ended, with its disk as it is, and run its command again\n" +
			"in the foreground.",
		Args: exactly("MACHINE"), ValidArgsFunction: a.machineNames,
	}
	cmd.Flags().StringVar(&kernel, "kernel", "", "kernel to boot (default the one it had)")
	cmd.Flags().StringVar(&accel, "accel", "", "kvm or tcg (default KVM where it works)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return ownFailure(a.start(cmd.Context(), args[0], kernel, accel))
	}
	return cmd
}

func (a *app) start(ctx context.Context, ref, kernel, accel string) error {
	machines, err := a.openMachines(ctx)
	if err != nil {
		return err
	}
	rec, err := machines.Find(ref)
	if err != nil {
		return err
	}
	term, err := a.openTerminal(rec.Config.TTY, rec.Config.Stdin)
	if err != nil {
		return err
	}
	host, err := a.host(ctx, first(kernel, string(rec.Kernel)), accel, "never")
	if err != nil {
		return err
	}
	signals := catchSignals()
	defer signals.stop()
	machine, err := machines.Restart(ctx, rec.ID, host)
	if err != nil {
		return err
	}
	r := &running{app: a, machine: machine, signals: signals, term: term}
	return r.toTheEnd(ctx)
}
