package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/internal/image/build"
	"github.com/banger-vm/banger/internal/image/verify"
)

// errDiffers makes a verification that found something exit with 1.
var errDiffers = errors.New("disk is not what the layers say")

func (a *app) verifyCommand() *cobra.Command {
	var b buildFlags
	cmd := &cobra.Command{
		Use:   "verify SOURCE DISK",
		Short: "Compare a disk with the image it was made from",
		Long: "Read the layers of SOURCE again and compare every inode of DISK with them: type, mode,\n" +
			"owner, size, content, times, extended attributes, devices, hard links and names. The\n" +
			"structure of the file system is checked too. Exits with 1 when anything differs.\n\n" + sourceHelp,
		Args: exactly("SOURCE", "DISK"),
	}
	b.registerRead(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o, err := b.options(a, args[0])
		if err != nil {
			return err
		}
		report, err := build.Verify(cmd.Context(), args[0], args[1], o)
		if err != nil {
			return err
		}
		return a.printReport(report)
	}
	return cmd
}

func (a *app) imageVerifyCommand() *cobra.Command {
	var b buildFlags
	cmd := &cobra.Command{
		Use:   "verify NAME",
		Short: "Compare the disk of an image with the layers it was built from",
		Args:  exactly("NAME"), ValidArgsFunction: a.imageNames,
	}
	b.registerRead(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := a.openStore()
		if err != nil {
			return err
		}
		img, err := findImage(s, args[0])
		if err != nil {
			return err
		}
		o, err := b.options(a, img.Source)
		if err != nil {
			return err
		}
		report, err := build.VerifyImage(cmd.Context(), s, img, o)
		if err != nil {
			return err
		}
		return a.printReport(report)
	}
	return cmd
}

// printReport writes what differs, a line each, and turns it into an error.
func (a *app) printReport(r *verify.Report) error {
	if a.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else {
		for _, d := range r.Differences {
			fmt.Fprintf(a.out, "%s: %s: want %s, got %s\n", oneLine(d.Path), d.Field, oneLine(d.Want), oneLine(d.Got))
		}
		for _, p := range r.Problems {
			fmt.Fprintf(a.out, "structure: %s\n", oneLine(p))
		}
	}
	if !r.OK() {
		return fmt.Errorf("%w: %d differences, %d problems of structure", errDiffers, len(r.Differences), len(r.Problems))
	}
	a.note("%d inodes and %d bytes are as the layers say", r.Inodes, r.Bytes)
	return nil
}
