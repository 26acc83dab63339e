package machinecmd

import (
	"context"
	"errors"
	"fmt"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/connect"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
	"github.com/banger-vm/banger/internal/cli/fetch"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/spf13/cobra"
)

func createCommand(e *env.Env) *cobra.Command {
	var m machineFlags
	cmd := &cobra.Command{
		Use:   "create [flags] IMAGE [COMMAND [ARG…]]",
		Short: "Make a machine without booting it",
		Example: `  banger create --name web --memory 1G registry.example/web:1
  banger start web`,
		Long: "Make a machine from an image, which is pulled if it is not here, and print its ID.\n" +
			"banger start boots it.",
		Args: arg.AtLeastOne("IMAGE"), ValidArgsFunction: fetch.ImageNames(e),
		RunE: func(cmd *cobra.Command, args []string) error { return exit.OfCommand(createMachine(cmd, e, &m, args)) },
	}
	m.register(cmd)
	return cmd
}

func createMachine(cmd *cobra.Command, e *env.Env, m *machineFlags, args []string) (err error) {
	ctx := cmd.Context()
	config, err := m.config(cmd, args[1:])
	if err != nil {
		return err
	}
	id, err := openIDFile(m.idFile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, id.close()) }()
	req, err := createRequest(ctx, e, m, args[0], config)
	if err != nil {
		return err
	}
	daemon, err := connect.Daemon(ctx, e)
	if err != nil {
		return err
	}
	created, err := daemon.Create(ctx, req)
	render.Warnings(e, created.Warnings)
	if err != nil {
		return err
	}
	return errors.Join(printID(e, created.Machine.ID), id.write(created.Machine.ID))
}

// printID prints the ID of a new machine.
func printID(e *env.Env, id string) error {
	if e.JSON {
		return render.JSON(e.Out, map[string]string{"id": id})
	}
	_, err := fmt.Fprintln(e.Out, id)
	return err
}

// createRequest returns the request for a new machine. It first gets the image
// and the kernel by the policy of --pull, because the daemon pulls nothing.
func createRequest(ctx context.Context, e *env.Env, m *machineFlags, ref string, config api.Config) (api.CreateRequest, error) {
	req := api.CreateRequest{Name: m.name, ImageName: ref, Remove: m.remove, Config: config}
	img, err := fetch.EnsureImage(ctx, e, &m.read, ref, m.pull)
	if err != nil {
		return req, err
	}
	kernel, err := fetch.EnsureKernel(ctx, e, m.kernel, m.pull)
	if err != nil {
		return req, err
	}
	req.Image, req.Kernel = string(img.ID), string(kernel.ID)
	return req, nil
}
