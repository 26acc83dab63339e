package agent

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestProtectorResetsScore starts processes from one with another score, which any
// user may raise. The child and its own child have the score 0, from their first
// instruction on.
func TestProtectorResetsScore(t *testing.T) {
	const file = "/proc/self/oom_score_adj"
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(before)) != "0" {
		t.Skipf("this process has the score %s", before)
	}
	proc, err := os.OpenRoot("/proc")
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	p := protector{proc}
	if err := p.setScore(os.Getpid(), 17); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.setScore(os.Getpid(), 0); err != nil {
			t.Error(err)
		}
	}()
	for i := range 20 {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		process, err := p.start("/bin/sh", []string{"sh", "-c", "cat " + file + " & cat " + file + "; wait; exit 3"},
			&os.ProcAttr{Files: []*os.File{nil, w, w}, Sys: &syscall.SysProcAttr{Setsid: true}})
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		out, err := io.ReadAll(r)
		r.Close()
		state, waitErr := process.Wait()
		if err != nil || waitErr != nil {
			t.Fatal(err, waitErr)
		}
		if got := fmt.Sprint(strings.Fields(string(out)), state.ExitCode()); got != "[0 0] 3" {
			t.Fatalf("process %d: scores and exit code %s, want [0 0] 3", i, got)
		}
	}
	_, err = p.start("/no/such", []string{"x"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{}})
	if !os.IsNotExist(err) {
		t.Errorf("start of a missing program: %v", err)
	}
}
