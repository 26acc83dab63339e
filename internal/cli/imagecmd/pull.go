package imagecmd

import (
	"context"
	"fmt"
	"strings"

	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
	"github.com/banger-vm/banger/internal/cli/fetch"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/spf13/cobra"
)

func pullCommand(e *env.Env) *cobra.Command {
	var flags fetch.Flags
	var name string
	cmd := &cobra.Command{
		Use:   "pull REF",
		Short: "Pull an image from a registry and build its disk",
		Example: `  banger image pull debian:12
  banger image pull --platform linux/arm64 --name arm ghcr.io/org/app@sha256:…`,
		Args: arg.Exactly("REF"),
	}
	flags.Register(cmd)
	cmd.Flags().StringVar(&name, "name", "", "name of the image here (default REF)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ref := strings.TrimPrefix(args[0], "docker://")
		if host, err := pull.RegistryHost(ref); err != nil || host == "" {
			return exit.Usagef("image pull takes a registry reference, got %q (image import takes other sources)", args[0])
		}
		return pullImage(cmd.Context(), e, &flags, ref, name)
	}
	return cmd
}

func importCommand(e *env.Env) *cobra.Command {
	var flags fetch.Flags
	var name string
	cmd := &cobra.Command{
		Use:   "import SOURCE",
		Short: "Take an image from anywhere and build its disk",
		Long:  "Take an image from anywhere and build its disk.\n\n" + sourceHelp,
		Example: `  banger image import oci:./layout:latest --name app
  docker save app | banger image import docker-archive:/dev/stdin`,
		Args: arg.Exactly("SOURCE"),
	}
	flags.Register(cmd)
	cmd.Flags().StringVar(&name, "name", "", "name of the image here (default from the source)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return pullImage(cmd.Context(), e, &flags, args[0], name)
	}
	return cmd
}

func pullImage(ctx context.Context, e *env.Env, flags *fetch.Flags, source, name string) error {
	o, err := flags.Options(e, source)
	if err != nil {
		return err
	}
	if name != "" {
		if name = pull.CanonicalName(name); name == "" {
			return exit.Usagef("--name: not an image name")
		}
	}
	s, err := store.Open(e.Paths.Data)
	if err != nil {
		return err
	}
	img, fresh, err := fetch.PullImage(ctx, e, s, source, name, o)
	if err != nil {
		return err
	}
	if fresh {
		e.Note("%s: %d inodes on a disk of %s", shownName(img), img.Disk.Inodes, render.Bytes(img.Disk.Size))
	} else {
		e.Note("%s: image is up to date", shownName(img))
	}
	if e.JSON {
		return render.JSON(e.Out, img)
	}
	_, err = fmt.Fprintln(e.Out, img.ID)
	return err
}
