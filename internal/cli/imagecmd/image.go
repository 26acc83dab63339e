// Package imagecmd has the commands that deal with images: the image group,
// and convert and verify, which take an image from any source.
package imagecmd

import (
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/spf13/cobra"
)

// sourceHelp explains SOURCE in the help of convert, import and verify.
const sourceHelp = `SOURCE is one of
  REF or docker://REF          an image in a registry
  oci:DIR[:TAG]                an OCI image layout
  oci-archive:FILE[:TAG]       the same in a tar file
  docker-archive:FILE[:TAG]    the output of docker save
  dir:DIR                      a folder of skopeo copy
  docker-daemon:REF            an image of the local Docker daemon
  tar:FILE                     a root file system as a tar file, - for stdin`

// Commands returns the commands.
func Commands(e *env.Env) []*cobra.Command {
	images := arg.Group("image", "Manage images", "  banger image pull debian:12\n  banger image ls",
		pullCommand(e), importCommand(e), listCommand(e), inspectCommand(e), removeCommand(e),
		arg.NoJSON(exportCommand(e)), unpackCommand(e), verifyImageCommand(e), pruneCommand(e),
	)
	return []*cobra.Command{convertCommand(e), images, verifyCommand(e)}
}
