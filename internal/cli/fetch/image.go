package fetch

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/banger-vm/banger/internal/image/build"
	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/spf13/cobra"
)

// FindImage returns the image that a user calls ref: by name, ID or digest.
func FindImage(s *store.Store, ref string) (*store.Image, error) {
	img, err := s.Find(ref, pull.CanonicalNames(ref)...)
	if errors.Is(err, store.ErrNotFound) {
		err = suggestImage(s, ref, err)
	}
	return img, err
}

// suggestImage adds the name of an image in the store to err, if the user may have meant
// it by ref.
func suggestImage(s *store.Store, ref string, err error) error {
	images, _, listErr := s.Images()
	if listErr != nil {
		return err
	}
	names := imageNames(images)
	for _, name := range names {
		if repository, ok := strings.CutSuffix(name, ":latest"); ok {
			names = append(names, repository)
		}
	}
	if meant := arg.Meant(ref, names); meant != "" {
		return fmt.Errorf("%w%s", err, meant)
	}
	return err
}

// imageNames returns the names of images, as users write them.
func imageNames(images []*store.Image) (names []string) {
	for _, img := range images {
		for _, n := range img.Names {
			names = append(names, pull.FamiliarName(n))
		}
	}
	return names
}

// ImageNames returns a completion by the names of the images in the store.
func ImageNames(e *env.Env) cobra.CompletionFunc {
	return arg.Complete(e, func() ([]string, error) {
		s, err := store.Open(e.Paths.Data)
		if err != nil {
			return nil, err
		}
		images, _, err := s.Images()
		if err != nil {
			return nil, err
		}
		return imageNames(images), nil
	})
}

// EnsureImage returns the image that a user calls ref, to run it. The disk of the
// image exists. With the policy always EnsureImage pulls the image first; with missing
// it does so only if the store lacks the image or its disk, or has it for another
// platform than --platform. With never it returns store.ErrNotFound or a
// *pull.PlatformError then.
func EnsureImage(ctx context.Context, e *env.Env, f *Flags, ref, policy string) (*store.Image, error) {
	if err := f.checkHost(); err != nil {
		return nil, err
	}
	s, err := store.Open(e.Paths.Data)
	if err != nil {
		return nil, err
	}
	img, err := FindImage(s, ref)
	if err == nil && f.platform != "" {
		err = pull.CheckPlatform(f.platform, img.Platform)
	}
	if err == nil && policy != "always" && s.HasDisk(img) {
		return img, nil
	}
	_, other := errors.AsType[*pull.PlatformError](err)
	switch {
	case err != nil && !other && !errors.Is(err, store.ErrNotFound):
		return nil, err
	case policy == "never" && other:
		return nil, fmt.Errorf("image %s, which must not be pulled: %w", ref, err)
	case policy == "never" && err != nil:
		return nil, fmt.Errorf("%w (it must not be pulled)", err)
	case policy == "never":
		return nil, fmt.Errorf("image %s, which must not be pulled: %w", ref, store.ErrNotFound)
	}
	o, err := f.Options(e, ref)
	if err != nil {
		return nil, err
	}
	if img, _, err = PullImage(ctx, e, s, ref, pull.CanonicalName(ref), o); err != nil {
		return nil, suggestImage(s, ref, err)
	}
	return img, nil
}

// checkHost returns an error if --platform asks for an image that no machine of this
// host can run.
func (f *Flags) checkHost() error {
	if f.platform == "" {
		return nil
	}
	host := "linux/" + runtime.GOARCH
	err := pull.CheckPlatform(f.platform, host)
	if _, ok := errors.AsType[*pull.PlatformError](err); ok {
		return fmt.Errorf("--platform=%s: machines of this host run images for %s only", f.platform, host)
	}
	if err != nil {
		return exit.Usagef("--platform: %v", err)
	}
	return nil
}

// PullImage pulls source into the store under name and shows the progress. It
// notes the warnings of a new image. fresh reports whether the image is new.
func PullImage(
	ctx context.Context, e *env.Env, s *store.Store, source, name string, o build.Options,
) (img *store.Image, fresh bool, err error) {
	report, stop := render.Progress(e)
	o.Report = report
	img, fresh, err = build.Pull(ctx, s, source, name, o)
	stop()
	if err == nil && fresh {
		render.Warnings(e, img.Warnings)
	}
	return img, fresh, err
}
