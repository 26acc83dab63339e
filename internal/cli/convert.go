package cli

import (
	"context"
	"fmt"
	"os"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/sparse"
	"github.com/banger-vm/banger/internal/image/build"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

// sourceHelp explains SOURCE to users of convert, import and verify.
const sourceHelp = `SOURCE is one of
  REF or docker://REF          an image in a registry
  oci:DIR[:TAG]                an OCI image layout
  oci-archive:FILE[:TAG]       the same in a tar file
  docker-archive:FILE[:TAG]    the output of docker save
  docker-daemon:REF            an image of the local Docker daemon
  tar:FILE                     a root file system as a tar file, - for standard input`

func (a *app) convertCommand() *cobra.Command {
	var b buildFlags
	var printDigest bool
	cmd := &cobra.Command{
		Use:   "convert SOURCE DISK",
		Short: "Write an image as one ext4 file",
		Long:  "Write any image as one ext4 file. Nothing else is kept but the cache of layers.\n\n" + sourceHelp,
		Example: `  banger convert debian:12 debian.ext4
  banger convert --size 4G oci-archive:app.tar app.ext4
  docker export box | banger convert tar:- box.ext4`,
		Args: exactly("SOURCE", "DISK"),
	}
	b.register(cmd)
	cmd.Flags().BoolVar(&printDigest, "print-digest", false, "print the SHA-256 of DISK before its name, as sha256sum does")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o, err := b.options(a, args[0])
		if err != nil {
			return err
		}
		p := a.startProgress()
		o.Report = p.event
		res, err := build.Convert(cmd.Context(), args[0], args[1], o)
		p.close()
		if err != nil {
			return err
		}
		a.noteWarnings(res.Warnings)
		a.note("%d inodes on a disk of %s, UUID %s", res.Inodes, units.BytesSize(float64(res.Size)), res.UUID)
		return a.printConverted(cmd.Context(), res, args[1], printDigest)
	}
	return cmd
}

// convertedDisk is the result of convert as JSON.
type convertedDisk struct {
	*build.Result
	Disk   string        `json:"disk"`
	Digest digest.Digest `json:"digest,omitempty"` // with --print-digest
}

func (a *app) printConverted(ctx context.Context, res *build.Result, path string, printDigest bool) error {
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
	if a.json {
		return a.printJSON(out)
	}
	line := path
	if printDigest {
		line = out.Digest.Hex() + "  " + path
	}
	_, err := fmt.Fprintln(a.out, line)
	return err
}

func (a *app) noteWarnings(warnings []string) {
	for _, w := range warnings {
		a.note("warning: %s", oneLine(w))
	}
}
