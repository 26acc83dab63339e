package cli

import (
	"fmt"
	"os"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

// imageRow is an image as image ls shows it.
type imageRow struct {
	Names    []string  `json:"names"`
	ID       string    `json:"id"`
	Platform string    `json:"platform"`
	Size     int64     `json:"size"`    // of the disk, bytes, holes included
	DiskUse  int64     `json:"diskUse"` // bytes on the host
	Pulled   time.Time `json:"pulled"`
}

func (a *app) imageListCommand() *cobra.Command {
	var full bool
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"},
		Short: "List images",
		Args:  exactly(),
		RunE: func(*cobra.Command, []string) error {
			s, err := a.openStore()
			if err != nil {
				return err
			}
			images, damaged, err := s.Images()
			if err != nil {
				return err
			}
			for _, d := range damaged {
				a.note("warning: %s", oneLine(d.Error()))
			}
			return a.listImages(s, images, full)
		},
	}
	cmd.Flags().BoolVar(&full, "no-trunc", false, "show digests whole")
	return cmd
}

func (a *app) listImages(s *store.Store, images []*store.Image, full bool) error {
	rows := []imageRow{}
	for _, img := range images {
		rows = append(rows, imageRow{
			Names: append([]string{}, img.Names...), ID: string(img.ID), Platform: img.Platform,
			Size: img.Disk.Size, DiskUse: diskUse(s.DiskPath(img)), Pulled: img.Pulled,
		})
	}
	if a.json {
		return a.printJSON(rows)
	}
	if a.quiet {
		for _, r := range rows {
			fmt.Fprintln(a.out, r.ID)
		}
		return nil
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NAME\tDIGEST\tPLATFORM\tSIZE\tDISK USE\tPULLED")
	for i, r := range rows {
		id := images[i].ID.Short()
		if full {
			id = r.ID
		}
		age := units.HumanDuration(time.Since(r.Pulled)) + " ago"
		for _, name := range namesOrNone(r.Names) {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", name, id, r.Platform,
				units.BytesSize(float64(r.Size)), units.BytesSize(float64(r.DiskUse)), age)
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

// shownName is how messages call an image.
func shownName(img *store.Image) string {
	if len(img.Names) == 0 {
		return img.ID.Short()
	}
	return pull.FamiliarName(img.Names[len(img.Names)-1])
}

// diskUse returns the bytes that a sparse file takes on the host, 0 when it
// is not there.
func diskUse(path string) int64 {
	const statUnit = 512 // of st_blocks, stat(2)
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * statUnit
	}
	return info.Size()
}
