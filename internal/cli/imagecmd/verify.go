package imagecmd

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/fetch"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/banger-vm/banger/internal/image/build"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/image/verify"
)

// errDiffers is the error of a verification that found a difference. The exit
// code is 1.
var errDiffers = errors.New("disk is not what the layers say")

func verifyCommand(e *env.Env) *cobra.Command {
	var flags fetch.Flags
	cmd := &cobra.Command{
		Use:     "verify SOURCE DISK",
		Short:   "Compare a disk with the image it was made from",
		Example: "  banger verify debian:12 debian.ext4",
		Long: "Read the layers of SOURCE again and compare every inode of DISK with them: type, mode,\n" +
			"owner, size, content, times, extended attributes, devices, hard links and names. The\n" +
			"structure of the file system is checked too. Exits with 1 when anything differs.\n\n" + sourceHelp,
		Args: arg.Exactly("SOURCE", "DISK"),
	}
	flags.RegisterRead(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o, err := flags.Options(e, args[0])
		if err != nil {
			return err
		}
		report, err := build.Verify(cmd.Context(), args[0], args[1], o)
		if err != nil {
			return err
		}
		return printReport(e, report)
	}
	return cmd
}

func verifyImageCommand(e *env.Env) *cobra.Command {
	var flags fetch.Flags
	cmd := &cobra.Command{
		Use:     "verify NAME",
		Short:   "Compare the disk of an image with the layers it was built from",
		Example: "  banger image verify debian:12",
		Args:    arg.Exactly("NAME"), ValidArgsFunction: fetch.ImageNames(e),
	}
	flags.RegisterRead(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := store.Open(e.Paths.Data)
		if err != nil {
			return err
		}
		img, err := fetch.FindImage(s, args[0])
		if err != nil {
			return err
		}
		o, err := flags.Options(e, img.Source)
		if err != nil {
			return err
		}
		report, err := build.VerifyImage(cmd.Context(), s, img, o)
		if err != nil {
			return err
		}
		return printReport(e, report)
	}
	return cmd
}

// printReport writes a line for each difference and each problem of the file
// system. It returns errDiffers if there is one.
func printReport(e *env.Env, r *verify.Report) error {
	if e.JSON {
		if err := render.JSON(e.Out, r); err != nil {
			return err
		}
	} else {
		for _, d := range r.Differences {
			fmt.Fprintf(e.Out, "%s: %s: want %s, got %s\n", render.OneLine(d.Path), d.Field, render.OneLine(d.Want), render.OneLine(d.Got))
		}
		for _, p := range r.Problems {
			fmt.Fprintf(e.Out, "structure: %s\n", render.OneLine(p))
		}
	}
	if !r.OK() {
		return fmt.Errorf("%w: %d differences, %d problems of structure", errDiffers, len(r.Differences), len(r.Problems))
	}
	e.Note("%d inodes and %d bytes are as the layers say", r.Inodes, r.Bytes)
	return nil
}
