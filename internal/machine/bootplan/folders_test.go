package bootplan

import (
	"archive/tar"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/machine/spec"
	"github.com/banger-vm/banger/test/support/tinyimage"
)

// TestFolders checks the folders that a machine creates, and whether it needs an
// overlay for them.
func TestFolders(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the programs of the test are for amd64")
	}
	bare := tinyimage.Disk(t, testFiles())
	full := testFiles()
	for _, name := range mountPoints {
		full = append(full, tinyimage.Entry(name[1:], "", 0o755, tar.TypeDir))
	}
	whole := tinyimage.Disk(t, full)
	many := make([]string, maxVolumes+1)
	for i := range many {
		many[i] = fmt.Sprintf("/data/%d", i)
	}
	for _, row := range []struct {
		name, disk string
		volumes    []string
		dir        string
		readOnly   bool
		want       []string
		overlay    bool
		err        string
	}{
		{name: "nothing is missing", disk: whole, volumes: []string{"/work", "/usr/bin/"}, dir: "/work", readOnly: true},
		{name: "a volume is missing", disk: whole, volumes: []string{"/data/db", "data/db/", "/work"}, want: []string{"/data/db"}},
		{name: "a volume is missing, read-only", disk: whole, volumes: []string{"/data"}, readOnly: true, want: []string{"/data"}, overlay: true},
		{name: "the working directory is missing, read-only", disk: whole, dir: "/nope", readOnly: true, overlay: true},
		{name: "the mount points are missing", disk: bare},
		{name: "the mount points are missing, read-only", disk: bare, readOnly: true, overlay: true},
		{name: "a volume over a file", disk: whole, volumes: []string{"/usr/bin/tool"}, err: "/usr/bin/tool"},
		{name: "a volume over a loop", disk: whole, volumes: []string{"/usr/bin/loop"}, err: "symbolic links"},
		{name: "a volume without a name", disk: whole, volumes: []string{""}, err: "not a path"},
		{name: "a volume with a zero byte", disk: whole, volumes: []string{"/a\x00b"}, err: "not a path"},
		{name: "a long volume", disk: whole, volumes: []string{strings.Repeat("/a", 2048)}, err: "not a path"},
		{name: "many volumes", disk: whole, volumes: many, err: "257 volumes"},
	} {
		t.Run(row.name, func(t *testing.T) {
			img := &store.Image{Platform: "linux/amd64", Config: store.Config{Cmd: []string{"/usr/bin/tool"}, WorkingDir: row.dir, Volumes: map[string]struct{}{}}}
			for _, v := range row.volumes {
				img.Config.Volumes[v] = struct{}{}
			}
			plan, err := New(img, row.disk, &spec.Config{ReadOnly: row.readOnly})
			if row.err != "" {
				if !errors.Is(err, ErrNotBootable) || !strings.Contains(err.Error(), row.err) {
					t.Errorf("error = %v, want one with %q", err, row.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(plan.Volumes, row.want) || plan.Overlay != row.overlay {
				t.Errorf("volumes %q, overlay %v, want %q, %v", plan.Volumes, plan.Overlay, row.want, row.overlay)
			}
		})
	}
}
