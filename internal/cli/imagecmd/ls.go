package imagecmd

import (
	"fmt"
	"time"

	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/spf13/cobra"
)

// imageRow is a row of image ls.
type imageRow struct {
	Names    []string  `json:"names"`
	ID       string    `json:"id"`
	Platform string    `json:"platform"`
	Size     int64     `json:"size"`    // of the disk, bytes, holes included
	DiskUse  int64     `json:"diskUse"` // bytes on the host
	Pulled   time.Time `json:"pulled"`
}

func listCommand(e *env.Env) *cobra.Command {
	var full bool
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"},
		Short: "List images",
		Example: `  banger image ls
  banger image ls --json`,
		Args: arg.Exactly(),
		RunE: func(*cobra.Command, []string) error {
			s, err := store.Open(e.Paths.Data)
			if err != nil {
				return err
			}
			images, damaged, err := s.Images()
			if err != nil {
				return err
			}
			for _, d := range damaged {
				e.Note("warning: %s", render.OneLine(d.Error()))
			}
			return listImages(e, s, images, full)
		},
	}
	cmd.Flags().BoolVar(&full, "no-trunc", false, "show digests whole")
	return cmd
}

func listImages(e *env.Env, s *store.Store, images []*store.Image, full bool) error {
	rows := []imageRow{}
	for _, img := range images {
		rows = append(rows, imageRow{
			Names: append([]string{}, img.Names...), ID: string(img.ID), Platform: img.Platform,
			Size: img.Disk.Size, DiskUse: render.DiskUse(s.DiskPath(img)), Pulled: img.Pulled,
		})
	}
	if e.JSON {
		return render.JSON(e.Out, rows)
	}
	if e.Quiet {
		for _, r := range rows {
			fmt.Fprintln(e.Out, r.ID)
		}
		return nil
	}
	w := render.NewTable(e.Out)
	fmt.Fprintln(w, "NAME\tDIGEST\tPLATFORM\tSIZE\tDISK USE\tPULLED")
	for i, r := range rows {
		id := images[i].ID.Short()
		if full {
			id = r.ID
		}
		age := render.Ago(r.Pulled)
		for _, name := range namesOrNone(r.Names) {
			render.Row(w, "%s\t%s\t%s\t%s\t%s\t%s", name, id, r.Platform,
				render.Bytes(r.Size), render.Bytes(r.DiskUse), age)
		}
	}
	return w.Flush()
}

func namesOrNone(names []string) []string {
	if len(names) == 0 {
		return []string{"<none>"}
	}
	var out []string
	for _, n := range names {
		out = append(out, pull.FamiliarName(n))
	}
	return out
}

// shownName returns the name of an image in messages.
func shownName(img *store.Image) string {
	if len(img.Names) == 0 {
		return img.ID.Short()
	}
	return pull.FamiliarName(img.Names[len(img.Names)-1])
}
