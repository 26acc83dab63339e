package bootplan

import (
	"errors"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/image/tree"
	"github.com/banger-vm/banger/internal/machine/spec"
)

// Bounds of the volumes to create. They keep the guest's configuration small.
const (
	maxVolumes   = 256
	maxVolumeLen = 4095 // bytes of a path: PATH_MAX without its zero byte
)

// mountPoints are the folders that a machine needs in its root file system.
var mountPoints = []string{"/proc", "/sys", "/dev", "/run"}

// addFolders adds the image's volumes that no layer has. The machine creates
// them at each boot, as docker does for each container. It creates the working
// directory of its commands too, and the mount points. On a read-only root file
// system this needs an overlay.
func (p *Plan) addFolders(root imageRoot, img *store.Image, c *spec.Config) error {
	for _, volume := range slices.Sorted(maps.Keys(img.Config.Volumes)) {
		if volume == "" || len(volume) > maxVolumeLen || strings.ContainsRune(volume, 0) {
			return notBootable("its volume %.100q is not a path", volume)
		}
		volume = path.Join("/", volume)
		missing, err := root.lacksFolder(volume)
		if err != nil {
			return notBootable("its volume %s: %w", volume, err)
		}
		if missing && !slices.Contains(p.Volumes, volume) {
			p.Volumes = append(p.Volumes, volume)
		}
	}
	if len(p.Volumes) > maxVolumes {
		return notBootable("it has %d volumes that no layer has, more than %d", len(p.Volumes), maxVolumes)
	}
	if !c.ReadOnly {
		return nil
	}
	p.Overlay = len(p.Volumes) > 0
	for _, dir := range append([]string{Exec(c, &img.Config).Dir}, mountPoints...) {
		// The machine reports a working directory that is a file.
		if missing, err := root.lacksFolder(path.Join("/", dir)); missing && err == nil {
			p.Overlay = true
		}
	}
	return nil
}

// lacksFolder reports whether nothing is at a path. It returns an error if a
// file is there, or if the path cannot be followed.
func (r imageRoot) lacksFolder(name string) (bool, error) {
	in, err := r.lookup(name)
	switch {
	case errors.Is(err, errNoFile):
		return true, nil
	case err != nil:
		return false, err
	case in.Type != tree.Directory:
		return false, errors.New("a " + in.Type.String() + " is there")
	}
	return false, nil
}
