package cli

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/banger-vm/banger/internal/kernel"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

// kernelRow is a kernel as kernel ls shows it.
type kernelRow struct {
	Names   []string  `json:"names"`
	ID      string    `json:"id"`
	Release string    `json:"release"`
	Arch    string    `json:"arch"`
	Modules int       `json:"modules"`
	DiskUse int64     `json:"diskUse"` // bytes on the host
	Origin  string    `json:"origin"`
	Added   time.Time `json:"added"`
}

func (a *app) kernelListCommand() *cobra.Command {
	var full, catalog bool
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"},
		Short: "List kernels",
		Args:  exactly(),
		RunE: func(*cobra.Command, []string) error {
			if catalog {
				return a.listCatalog()
			}
			s, err := a.openKernels()
			if err != nil {
				return err
			}
			kernels, damaged, err := s.List()
			if err != nil {
				return err
			}
			for _, d := range damaged {
				a.note("warning: %s", oneLine(d.Error()))
			}
			return a.listKernels(kernels, full)
		},
	}
	cmd.Flags().BoolVar(&full, "no-trunc", false, "show digests whole")
	cmd.Flags().BoolVar(&catalog, "catalog", false, "list what kernel pull knows by name instead")
	return cmd
}

func (a *app) listKernels(kernels []*kernel.Kernel, full bool) error {
	rows := []kernelRow{}
	for _, k := range kernels {
		row := kernelRow{
			Names: append([]string{}, k.Names...), ID: string(k.ID), Release: k.Release, Arch: k.Arch,
			DiskUse: kernelUse(k), Origin: k.Origin, Added: k.Added,
		}
		if k.Loadable != nil {
			row.Modules = k.Loadable.Count
		}
		rows = append(rows, row)
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
	fmt.Fprintln(w, "NAME\tID\tRELEASE\tARCH\tMODULES\tDISK USE\tADDED")
	for i, r := range rows {
		id := kernels[i].ID.Short()
		if full {
			id = r.ID
		}
		if len(r.Names) == 0 {
			r.Names = []string{"<none>"}
		}
		for _, name := range r.Names {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", name, id, r.Release, r.Arch, r.Modules,
				units.BytesSize(float64(r.DiskUse)), units.HumanDuration(time.Since(r.Added))+" ago")
		}
	}
	return w.Flush()
}

func (a *app) listCatalog() error {
	entries, err := kernel.Catalog(a.kernelCatalog())
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(entries)
	}
	if a.quiet {
		for _, e := range entries {
			fmt.Fprintln(a.out, e.Name)
		}
		return nil
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NAME\tSOURCE\tSUMMARY")
	for _, e := range entries {
		for i, source := range e.Sources {
			if i > 0 {
				e.Name, e.Summary = "", ""
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", e.Name, source, e.Summary)
		}
	}
	return w.Flush()
}

// kernelUse returns the bytes that a kernel's files take on the host.
func kernelUse(k *kernel.Kernel) (sum int64) {
	for name := range k.Files {
		sum += diskUse(k.Path(name))
	}
	return sum
}
