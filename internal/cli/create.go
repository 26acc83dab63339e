package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/image/build"
	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/spf13/cobra"
)

func (a *app) createCommand() *cobra.Command {
	var m machineFlags
	cmd := &cobra.Command{
		Use:   "create [FLAGS] IMAGE [COMMAND [ARG…]]",
		Short: "Make a machine without booting it",
		Long: "Make a machine from an image, which is pulled if it is not here, and print its ID.\n" +
			"banger start boots it.",
		Args: atLeastOne("IMAGE"), ValidArgsFunction: a.imageNames,
		RunE: func(cmd *cobra.Command, args []string) error { return ownFailure(a.create(cmd, &m, args)) },
	}
	m.register(cmd)
	return cmd
}

func (a *app) create(cmd *cobra.Command, m *machineFlags, args []string) (err error) {
	config, err := m.config(cmd, args[1:])
	if err != nil {
		return err
	}
	id, err := openIDFile(m.idFile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, id.close()) }()
	made, err := a.createMachine(cmd.Context(), m, args[0], config)
	if err != nil {
		return err
	}
	fmt.Fprintln(a.out, made.Machine.ID)
	return id.write(made.Machine.ID)
}

func (a *app) createMachine(ctx context.Context, m *machineFlags, ref string, config api.Config) (made api.Created, err error) {
	req, err := a.createRequest(ctx, m, ref, config)
	if err != nil {
		return made, err
	}
	daemon, err := a.daemon(ctx)
	if err != nil {
		return made, err
	}
	made, err = daemon.Create(ctx, req)
	a.noteWarnings(made.Warnings)
	return made, err
}

// createRequest gets the image and the kernel where that is wanted: the daemon
// takes what is here.
func (a *app) createRequest(ctx context.Context, m *machineFlags, ref string, config api.Config) (api.CreateRequest, error) {
	req := api.CreateRequest{Name: m.name, ImageName: ref, Remove: m.remove, Config: config}
	s, err := a.openStore()
	if err != nil {
		return req, err
	}
	img, err := a.imageFor(ctx, s, &m.read, ref, m.pull)
	if err != nil {
		return req, err
	}
	kernel, err := a.kernelFor(ctx, m.kernel, m.pull)
	if err != nil {
		return req, err
	}
	req.Image, req.Kernel = string(img.ID), string(kernel.ID)
	return req, nil
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
	img, fresh, err := build.Pull(ctx, s, ref, pull.CanonicalName(ref), o)
	p.close()
	if err == nil && fresh {
		a.noteWarnings(img.Warnings)
	}
	return img, err
}

// kernelFor finds a kernel or, where policy allows, gets it.
func (a *app) kernelFor(ctx context.Context, name, policy string) (*kernel.Kernel, error) {
	kernels, err := a.openKernels()
	if err != nil {
		return nil, err
	}
	if err := kernels.Sweep(ctx); err != nil {
		return nil, err
	}
	name = first(name, a.config.Kernel, kernel.DefaultName)
	k, err := kernels.Find(name)
	if err == nil || !errors.Is(err, kernel.ErrNotFound) || policy == "never" {
		return k, err
	}
	a.note("kernel %s is not here yet: getting it (once)", name)
	return a.pullKernel(ctx, kernels, name)
}

// An idFile is where a program looks for the ID of the machine that it has
// made. Its methods do nothing on nil.
type idFile struct {
	file    *os.File
	written bool
}

// openIDFile makes the file before the machine, so that no machine is made
// whose ID nobody learns.
func openIDFile(name string) (*idFile, error) {
	if name == "" {
		return nil, nil //nolint:nilnil // no file, as documented
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // as any file that a user asks for
	if err != nil {
		return nil, fmt.Errorf("make ID file: %w", err)
	}
	return &idFile{file: f}, nil
}

// write tells the ID.
func (i *idFile) write(id string) error {
	if i == nil {
		return nil
	}
	if _, err := i.file.WriteString(id); err != nil {
		return fmt.Errorf("write ID file: %w", err)
	}
	i.written = true
	return nil
}

// close removes the file where no ID was written.
func (i *idFile) close() error {
	if i == nil {
		return nil
	}
	err := i.file.Close()
	if !i.written {
		err = errors.Join(err, os.Remove(i.file.Name()))
	}
	if err != nil {
		return fmt.Errorf("close ID file: %w", err)
	}
	return nil
}
