package imagecmd

import (
	"context"
	"fmt"
	"os"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/sparse"
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/fetch"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/banger-vm/banger/internal/image/build"
	"github.com/spf13/cobra"
)

func convertCommand(e *env.Env) *cobra.Command {
	var flags fetch.Flags
	var printDigest bool
	cmd := &cobra.Command{
		Use:   "convert SOURCE DISK",
		Short: "Write an image as one ext4 file",
		Long:  "Write any image as one ext4 file. Nothing else is kept but the cache of layers.\n\n" + sourceHelp,
		Example: `  banger convert debian:12 debian.ext4
  banger convert --size 4G oci-archive:app.tar app.ext4
  docker export box | banger convert tar:- box.ext4`,
		Args: arg.Exactly("SOURCE", "DISK"),
	}
	flags.Register(cmd)
	cmd.Flags().BoolVar(&printDigest, "print-digest", false, "print the SHA-256 of DISK before its name, as sha256sum does")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o, err := flags.Options(e, args[0])
		if err != nil {
			return err
		}
		report, stop := render.Progress(e)
		o.Report = report
		res, err := build.Convert(cmd.Context(), args[0], args[1], o)
		stop()
		if err != nil {
			return err
		}
		render.Warnings(e, res.Warnings)
		e.Note("%d inodes on a disk of %s, UUID %s", res.Inodes, render.Bytes(res.Size), res.UUID)
		return printConverted(cmd.Context(), e, res, args[1], printDigest)
	}
	return cmd
}

// convertedDisk is the result of convert as JSON.
type convertedDisk struct {
	*build.Result
	Disk   string        `json:"disk"`
	Digest digest.Digest `json:"digest,omitempty"` // with --print-digest
}

func printConverted(ctx context.Context, e *env.Env, res *build.Result, path string, printDigest bool) error {
	out := convertedDisk{Result: res, Disk: path}
	if printDigest {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if out.Digest, err = sparse.Digest(ctx, f); err != nil {
			return err
		}
	}
	if e.JSON {
		return render.JSON(e.Out, out)
	}
	line := path
	if printDigest {
		line = out.Digest.Hex() + "  " + path
	}
	_, err := fmt.Fprintln(e.Out, line)
	return err
}
