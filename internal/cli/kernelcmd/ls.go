package kernelcmd

import (
	"fmt"
	"time"

	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/kernel/source"
	"github.com/spf13/cobra"
)

// kernelRow is a row of kernel ls.
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

func listCommand(e *env.Env) *cobra.Command {
	var full, catalog bool
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"},
		Short: "List kernels",
		Example: `  banger kernel ls
  banger kernel ls --catalog`,
		Args: arg.Exactly(),
		RunE: func(*cobra.Command, []string) error {
			if catalog {
				return listCatalog(e)
			}
			s, err := kernel.Open(e.Paths.Data)
			if err != nil {
				return err
			}
			kernels, damaged, err := s.List()
			if err != nil {
				return err
			}
			for _, d := range damaged {
				e.Note("warning: %s", render.OneLine(d.Error()))
			}
			return listKernels(e, kernels, full)
		},
	}
	cmd.Flags().BoolVar(&full, "no-trunc", false, "show digests whole")
	cmd.Flags().BoolVar(&catalog, "catalog", false, "list what kernel pull knows by name instead")
	return cmd
}

func listKernels(e *env.Env, kernels []*kernel.Kernel, full bool) error {
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
			render.Row(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s", name, id, r.Release, r.Arch, r.Modules,
				render.Bytes(r.DiskUse), render.Ago(r.Added))
		}
	}
	return w.Flush()
}

func listCatalog(e *env.Env) error {
	entries, err := source.Catalog(e.KernelCatalog())
	if err != nil {
		return err
	}
	if e.JSON {
		return render.JSON(e.Out, entries)
	}
	if e.Quiet {
		for _, entry := range entries {
			fmt.Fprintln(e.Out, entry.Name)
		}
		return nil
	}
	w := render.NewTable(e.Out)
	fmt.Fprintln(w, "NAME\tSOURCE\tSUMMARY")
	for _, entry := range entries {
		for i, text := range entry.Sources {
			if i > 0 {
				entry.Name, entry.Summary = "", ""
			}
			render.Row(w, "%s\t%s\t%s", entry.Name, text, entry.Summary)
		}
	}
	return w.Flush()
}

// kernelUse returns the bytes that a kernel's files take on the host.
func kernelUse(k *kernel.Kernel) (sum int64) {
	for name := range k.Files {
		sum += render.DiskUse(k.Path(name))
	}
	return sum
}
