package fetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/banger-vm/banger/internal/image/build"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/kernel/source"
)

// A KernelRequest selects one kernel of a source. The zero value selects the
// only kernel of the source and keeps the name that the catalog gives it.
type KernelRequest struct {
	Name    string // "" for the catalog's, or the release
	Release string // "" if the source has one kernel only
	Force   bool   // replace a kernel that is in the store
	Files   source.Files
	Flags   Flags
}

// EnsureKernel returns the kernel of a name, "" for the default one. It gets a
// kernel that is not in the store, unless the policy is never.
func EnsureKernel(ctx context.Context, e *env.Env, name, policy string) (*kernel.Kernel, error) {
	kernels, err := kernel.Open(e.Paths.Data)
	if err != nil {
		return nil, err
	}
	if err := kernels.Sweep(ctx); err != nil {
		return nil, err
	}
	name = cmp.Or(name, e.Config.Kernel, kernel.DefaultName)
	k, err := kernels.Find(name)
	if err == nil || !errors.Is(err, kernel.ErrNotFound) || policy == "never" {
		return k, err
	}
	if err := source.Check(e.KernelCatalog(), name); err != nil {
		return nil, fmt.Errorf("kernel %s: not on this host, and %w", name, err)
	}
	e.Note("kernel %s is not here yet: getting it (once)", name)
	k, _, err = PullKernel(ctx, e, kernels, name, &KernelRequest{})
	return k, err
}

// PullKernel gets the kernel wanted, a name of the catalog or a SOURCE, and
// shows the progress. It describes a new kernel in a note. fresh reports
// whether the kernel is new.
func PullKernel(
	ctx context.Context, e *env.Env, s *kernel.Store, wanted string, r *KernelRequest,
) (k *kernel.Kernel, fresh bool, err error) {
	o, err := r.options(e, wanted)
	if err != nil {
		return nil, false, err
	}
	report, stop := render.Progress(e)
	o.Build.Report = report
	o.Report = func(text string) { report(build.Event{Step: build.StepNotice, Text: render.OneLine(text)}) }
	k, fresh, err = source.Pull(ctx, s, wanted, r.Name, o)
	stop()
	if err == nil && fresh {
		err = noteKernel(e, k)
	}
	return k, fresh, err
}

func (r *KernelRequest) options(e *env.Env, wanted string) (source.Options, error) {
	o := source.Options{Catalog: e.KernelCatalog(), Files: r.Files, Release: r.Release, Force: r.Force}
	if !strings.HasPrefix(wanted, "docker://") {
		wanted = "tar:-" // a source without a registry
	}
	var err error
	o.Build, err = r.Flags.Options(e, wanted)
	return o, err
}

// noteKernel notes the release of a kernel, and each required feature that it
// lacks.
func noteKernel(e *env.Env, k *kernel.Kernel) error {
	render.Warnings(e, k.Warnings)
	features, err := k.Features()
	if err != nil {
		return err
	}
	for _, f := range features {
		if f.Required && f.State == kernel.Missing {
			e.Note("warning: kernel lacks %s (%s), which every machine needs: %s", f.Name, f.Option, f.Purpose)
		}
	}
	modules := 0
	if k.Loadable != nil {
		modules = k.Loadable.Count
	}
	e.Note("%s: kernel %s for %s with %d modules", k.ShownName(), k.Release, k.Arch, modules)
	return nil
}
