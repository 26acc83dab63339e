package cli

import (
	"fmt"
	"strings"

	"github.com/banger-vm/banger/internal/image/build"
	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

func (a *app) imagePullCommand() *cobra.Command {
	var b buildFlags
	var name string
	cmd := &cobra.Command{
		Use:   "pull REF",
		Short: "Pull an image from a registry and build its disk",
		Example: `  banger image pull debian:12
  banger image pull --platform linux/arm64 --name arm ghcr.io/org/app@sha256:…`,
		Args: exactly("REF"),
	}
	b.register(cmd)
	cmd.Flags().StringVar(&name, "name", "", "name of the image here (default REF)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ref := strings.TrimPrefix(args[0], "docker://")
		if host, err := pull.RegistryHost(ref); err != nil || host == "" {
			return usagef("image pull takes a registry reference, got %q (image import takes other sources)", args[0])
		}
		return a.pull(cmd, &b, ref, name)
	}
	return cmd
}

func (a *app) imageImportCommand() *cobra.Command {
	var b buildFlags
	var name string
	cmd := &cobra.Command{
		Use:   "import SOURCE",
		Short: "Take an image from anywhere and build its disk",
		Long:  "Take an image from anywhere and build its disk.\n\n" + sourceHelp,
		Example: `  banger image import oci:./layout:latest --name app
  docker save app | banger image import docker-archive:/dev/stdin`,
		Args: exactly("SOURCE"),
	}
	b.register(cmd)
	cmd.Flags().StringVar(&name, "name", "", "name of the image here (default from the source)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.pull(cmd, &b, args[0], name) }
	return cmd
}

func (a *app) pull(cmd *cobra.Command, b *buildFlags, source, name string) error {
	o, err := b.options(a, source)
	if err != nil {
		return err
	}
	if name != "" {
		if name = pull.CanonicalName(name); name == "" {
			return usagef("--name: not an image name")
		}
	}
	s, err := a.openStore()
	if err != nil {
		return err
	}
	p := a.startProgress()
	o.Report = p.event
	img, fresh, err := build.Pull(cmd.Context(), s, source, name, o)
	p.close()
	if err != nil {
		return err
	}
	if fresh {
		a.noteWarnings(img.Warnings)
		a.note("%s: %d inodes on a disk of %s", shownName(img), img.Disk.Inodes, units.BytesSize(float64(img.Disk.Size)))
	} else {
		a.note("%s: image is up to date", shownName(img))
	}
	if a.json {
		return a.printJSON(img)
	}
	_, err = fmt.Fprintln(a.out, img.ID)
	return err
}
