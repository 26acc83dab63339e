package descriptor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// childVariable makes the test binary list its descriptors after CloseInherited.
const childVariable = "BANGER_TEST_DESCRIPTOR"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) == "" {
		os.Exit(m.Run())
	}
	if err := listAfterClose(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// listAfterClose keeps descriptor 4, opens a pipe, and writes the target of each
// open descriptor from 3 on.
func listAfterClose() error {
	own, _, err := os.Pipe() // opens the poller of Go's runtime too
	if err != nil {
		return err
	}
	defer own.Close()
	const kept = 4
	if err := CloseInherited(kept); err != nil {
		return err
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		// The descriptor by which ReadDir has read the folder is closed.
		if target, err := os.Readlink(filepath.Join(folder, e.Name())); err == nil {
			fmt.Fprintln(os.Stdout, target)
		}
	}
	out, err := exec.Command("/bin/ls", "-l", folder).Output()
	fmt.Fprintf(os.Stdout, "of a child:\n%s", out)
	return err
}

// TestCloseInherited starts a process with three files and checks that it keeps
// only the one that it asked for and its own, and passes none of them on.
func TestCloseInherited(t *testing.T) {
	dir := t.TempDir()
	var files []*os.File
	for _, name := range []string{"first", "kept", "last"} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{childVariable + "=1"}
	cmd.ExtraFiles = files
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	own, child, _ := strings.Cut(string(out), "of a child:\n")
	targets := strings.Fields(own)
	if !slices.Contains(targets, files[1].Name()) || !strings.Contains(own, "pipe:") {
		t.Errorf("the process has lost files that it needs:\n%s", own)
	}
	if slices.Contains(targets, files[0].Name()) || slices.Contains(targets, files[2].Name()) {
		t.Errorf("the process keeps files of its caller:\n%s", own)
	}
	if strings.Contains(child, dir) {
		t.Errorf("the process passes files on:\n%s", child)
	}
}
