//go:build e2e

package e2e

import (
	"testing"
)

// TestB3DisksOfEarlierVersions compares the SHA-256 of the disks of the torture images with those of earlier
// versions of banger. A change of the layout needs another layout version, and other values here.
func TestB3DisksOfEarlierVersions(t *testing.T) {
	needNative(t)
	const all = "7ea62ad97a83d66ffbedf9a862f8db16b5c43d6953cc9a8ac8a6ea65f2027c4e"
	box := newSandbox(t)
	for _, row := range []struct{ image, want string }{
		{"torture:1", all},
		{"torture:zstd", all},
		{"torture:multi", all},
		{"torture:names", "46322b848c15d4d5d9fd7daae55f79ac18888f2f518b4bb17b7a90fc91c5e9d0"},
	} {
		if got := digestOf(t, box.convert(t, "native", reference(row.image))); got != row.want {
			t.Errorf("%s: the disk has the SHA-256 %s, want %s", row.image, got, row.want)
		}
	}
}
