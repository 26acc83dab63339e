//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

// TestB3LayerCacheGivesTheSameBytes converts on file systems that share extents, with an empty, a warm and a damaged
// layer cache. The disks must equal one that was converted without a layer cache.
func TestB3LayerCacheGivesTheSameBytes(t *testing.T) {
	needNative(t)
	plain := newSandbox(t)
	want := digestOf(t, plain.convert(t, "native", reference("torture:1")))
	for _, fs := range []string{"xfs", "btrfs"} {
		t.Run(fs, func(t *testing.T) {
			box := sandboxOn(t, fs, 4<<30)
			for _, row := range []struct {
				name   string
				damage func([]string)
			}{
				{"empty", func([]string) {}},
				{"warm", func(tables []string) {
					if len(tables) == 0 {
						t.Fatal("no layer was cached")
					}
				}},
				{"damaged tables", func(tables []string) {
					for _, table := range tables {
						if err := os.Truncate(table, fileSize(t, table)-1); err != nil {
							t.Fatal(err)
						}
					}
				}},
				{"short spools", func(tables []string) {
					for _, table := range tables {
						if err := os.Truncate(table[:len(table)-len("table")]+"spool", 1); err != nil {
							t.Fatal(err)
						}
					}
				}},
			} {
				tables, err := filepath.Glob(box.path("cache/banger/layers/*/*.table"))
				if err != nil {
					t.Fatal(err)
				}
				row.damage(tables)
				if got := digestOf(t, box.convert(t, "native", reference("torture:1"))); got != want {
					t.Errorf("%s: the disk has other bytes", row.name)
				}
			}
			box.must(t, "image", "prune", "--all")
			if left, err := filepath.Glob(box.path("cache/banger/layers/*/*")); err != nil || len(left) > 0 {
				t.Errorf("prune left %v, %v", left, err)
			}
		})
	}
}
