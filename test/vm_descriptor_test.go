//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestR1CallersFiles starts a daemon and a machine from a process with two more open files, and checks that neither the
// daemon nor the supervisor nor QEMU has one of them.
func TestR1CallersFiles(t *testing.T) {
	box := sharedUnprivilegedSandbox(t)
	box.must(t, "daemon", "stop") // the command below starts it again
	dir := t.TempDir()
	cmd := box.command(t.Context(), "run", "-d", "--name", "files", reference("debian:12"), "sleep", "infinity")
	for _, name := range []string{"first", "second"} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	t.Cleanup(func() { box.remove(t, "files") })
	expectCode(t, finish(t, cmd, nil), 0)
	box.monitorOf(t, "files") // fails without a monitor
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		pid := strings.Split(link, "/")[2]
		if err == nil && strings.HasPrefix(target, dir) && pid != strconv.Itoa(os.Getpid()) {
			command, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			t.Errorf("%s is %s in %q", link, target, command)
		}
	}
}
