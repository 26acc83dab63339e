//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
)

// execGrown checks that the root file system has grown to the size of its disk.
func execGrown(t *testing.T, box sandbox) {
	got := box.must(t, "exec", "-u", "0", "shared", "sh", "-c", "df -B1M --output=size / | tail -n 1; grep -c vda /proc/mounts")
	var megabytes, mounts int
	if _, err := fmt.Sscan(got.stdout, &megabytes, &mounts); err != nil || megabytes < 2500 || mounts < 1 {
		t.Errorf("size of / = %q, want nearly 3 GiB on vda (%v)", got.stdout, err)
	}
}

// execDeleted deletes a file in the machine and checks that the host gets its space back.
func execDeleted(t *testing.T, box sandbox) {
	use := func() (blocks int64) {
		disks, err := filepath.Glob(box.path("data/banger/machines/*/disk.*"))
		if err != nil || len(disks) == 0 {
			t.Fatalf("no disk: %v", err)
		}
		for _, disk := range disks {
			var st syscall.Stat_t
			if err := syscall.Stat(disk, &st); err != nil {
				t.Fatal(err)
			}
			blocks += st.Blocks
		}
		return blocks >> 11 // MiB
	}
	before := use()
	box.must(t, "exec", "-u", "0", "shared", "sh", "-c", "head -c 200M /dev/urandom >/big && sync /big")
	if after := use(); after < before+190 {
		t.Errorf("a file of 200 MiB takes %d MiB", after-before)
	}
	box.must(t, "exec", "-u", "0", "shared", "sh", "-c", "rm /big && sync")
	eventually(t, bootLimit, "the space is given back", func() bool { return use() < before+20 })
}
