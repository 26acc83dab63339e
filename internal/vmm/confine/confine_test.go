package confine

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// onThread restricts a thread and calls do on it.
func onThread(t testing.TB, rules []Rule, do func() error) error {
	t.Helper()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // not unlocked, so the thread ends with the goroutine
		if err := Thread(rules); err != nil {
			t.Error(err)
		}
		result <- do()
	}()
	return <-result
}

func needLandlock(t *testing.T) {
	t.Helper()
	if ABI() == 0 && os.Getenv("CI") == "true" {
		t.Fatal("this kernel has no Landlock")
	}
	if ABI() == 0 {
		t.Skip("this kernel has no Landlock")
	}
}

// openAndClose returns a function that opens a file with flags.
func openAndClose(path string, flags int) func() error {
	return func() error {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}

func TestRules(t *testing.T) {
	needLandlock(t)
	dir := t.TempDir()
	read, write, other := filepath.Join(dir, "read"), filepath.Join(dir, "write"), filepath.Join(dir, "other")
	for _, d := range []string{read, write, other} {
		if err := errors.Join(os.Mkdir(d, 0o700), os.WriteFile(filepath.Join(d, "file"), nil, 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	opened, err := os.Open(filepath.Join(other, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	fd, err := unix.MemfdCreate("memory", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	memory := os.NewFile(uintptr(fd), "memory")
	defer memory.Close()
	rules := []Rule{
		{Path: read, Access: Read}, {Path: filepath.Join(write, "file"), Access: ReadWrite}, {Path: filepath.Join(dir, "none"), Access: Run},
		{Path: filepath.Join(read, "file", "none"), Access: Run}, {File: memory, Access: Read}, {Path: "/dev/null", Access: ReadWrite},
	}
	for _, row := range []struct {
		name string
		do   func() error
		want error
	}{
		{"read below a folder", openAndClose(read+"/file", unix.O_RDONLY), nil},
		{"list a folder", openAndClose(read, unix.O_DIRECTORY), nil},
		{"write below a folder to read", openAndClose(read+"/file", unix.O_RDWR), unix.EACCES},
		{"run below a folder to read", func() error { return unix.Exec(read+"/file", nil, nil) }, unix.EACCES},
		{"write a file", openAndClose(write+"/file", unix.O_RDWR), nil},
		{"make a file beside it", openAndClose(write+"/new", unix.O_RDWR|unix.O_CREAT), unix.EACCES},
		{"remove it", func() error { return unix.Unlink(write + "/file") }, unix.EACCES},
		{"read another file", openAndClose(other+"/file", unix.O_RDONLY), unix.EACCES},
		{"read another file by the path of its descriptor", openAndClose(filepath.Join("/proc/self/fd", itoa(opened.Fd())), unix.O_RDONLY), unix.EACCES},
		{"use its descriptor", func() error { _, err := unix.Seek(int(opened.Fd()), 0, 1); return err }, nil},
		{"reopen memory", openAndClose(filepath.Join("/proc/self/fd", itoa(memory.Fd())), unix.O_RDONLY), nil},
		{"make a socket", func() error { _, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); return err }, unix.EPERM},
		{"use io_uring", func() error { _, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 0, 0, 0); return errno }, unix.EPERM},
		{"make shared memory", func() error { _, err := unix.SysvShmGet(unix.IPC_PRIVATE, 1, 0o600); return err }, unix.EPERM},
		{"start a process", func() error { return exec.Command("/bin/true").Run() }, os.ErrPermission},
	} {
		if err := onThread(t, rules, row.do); !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", row.name, err, row.want)
		}
	}
	// Only the threads are restricted.
	if err := openAndClose(other+"/file", unix.O_RDWR)(); err != nil {
		t.Errorf("after the threads: %v", err)
	}
	if err := exec.CommandContext(t.Context(), "/bin/true").Run(); err != nil {
		t.Errorf("after the threads: %v", err)
	}
}

// TestRunningProcess checks that a process keeps the restrictions of the thread
// that started it.
func TestRunningProcess(t *testing.T) {
	needLandlock(t)
	rules := []Rule{{Path: "/usr", Access: Run}, {Path: "/bin", Access: Run}, {Path: "/lib", Access: Run}, {Path: "/lib64", Access: Run},
		{Path: "/dev/null", Access: ReadWrite}}
	for script, want := range map[string]bool{
		"exit 0": true, "read -r line </etc/hostname": false, "cd / && echo * >/dev/null": true, "kill -0 $PPID": ABI() < 6,
	} {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", script)
		err := onThread(t, rules, cmd.Run)
		if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok || (err == nil) != want {
			t.Errorf("%s: %v %v, want success %v", script, err, exit, want)
		}
	}
}

// TestHandled checks that no ABI handles a right that it does not have
// (landlock(7), "VERSIONS").
func TestHandled(t *testing.T) {
	for abi, want := range map[int][3]uint64{1: {0x1fff, 0, 0}, 2: {0x3fff, 0, 0}, 3: {0x7fff, 0, 0}, 4: {0x7fff, 3, 0}, 5: {0xffff, 3, 0}, 6: {0xffff, 3, 3}, 7: {0xffff, 3, 3}} {
		a := handled(abi)
		if got := [3]uint64{a.Handled_access_fs, a.Handled_access_net, a.Scoped}; got != want {
			t.Errorf("ABI %d: %x, want %x", abi, got, want)
		}
	}
	if fd, _, err := newRuleset(0); fd != -1 || err != nil {
		t.Errorf("without Landlock: descriptor %d, %v", fd, err)
	}
	needLandlock(t)
	for abi := 1; abi <= ABI()+3; abi++ { // a kernel may report too many
		fd, rights, err := newRuleset(abi)
		if err != nil || rights == 0 {
			t.Fatalf("ABI %d: %v", abi, err)
		}
		unix.Close(fd)
	}
}

// TestOtherArchitecture runs the filter for a wrong architecture.
func TestOtherArchitecture(t *testing.T) {
	wrong := filter(0)
	if wrong[2].K != unix.SECCOMP_RET_KILL_PROCESS {
		t.Errorf("another architecture is met with %#x", wrong[2].K)
	}
	for i, number := range refused {
		at := 5 + i
		if deny := wrong[at+1+int(wrong[at].Jt)]; wrong[at].K != number || deny.K != unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM) {
			t.Errorf("call %d leads to %#x", number, deny.K)
		}
	}
	if deny := wrong[5+int(wrong[4].Jt)]; deny.K != unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM) {
		t.Errorf("calls of x32 lead to %#x", deny.K)
	}
}

// BenchmarkThread measures the start of a process with and without the restrictions.
func BenchmarkThread(b *testing.B) {
	var rules []Rule
	for _, path := range []string{"/usr", "/lib", "/lib64", "/bin", "/sbin"} {
		rules = append(rules, Rule{Path: path, Access: Run})
	}
	for range 30 {
		rules = append(rules, Rule{Path: "/dev/null", Access: ReadWrite})
	}
	start := func() error { return exec.Command("/bin/true").Run() }
	b.Run("without", func(b *testing.B) {
		for b.Loop() {
			if err := start(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("with", func(b *testing.B) {
		for b.Loop() {
			if err := onThread(b, rules, start); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func itoa(fd uintptr) string { return strconv.Itoa(int(fd)) }
