package qemu_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/qemu"
)

// owner starts the machine whose configuration is in the environment, prints
// its PID, and waits to be killed. It ignores SIGINT.
func owner() int {
	signal.Ignore(syscall.SIGINT)
	var cfg vmm.Config
	if err := json.Unmarshal([]byte(os.Getenv(envOwner)), &cfg); err != nil {
		return fail(err)
	}
	m, err := qemu.Monitor{}.Start(context.Background(), cfg)
	if err != nil {
		return fail(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(m.PID()); err != nil {
		return fail(err)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// startOwner runs owner in a process group of its own, as a shell would.
func startOwner(t *testing.T, cfg vmm.Config) (cmd *exec.Cmd, pid int) {
	t.Helper()
	cfg.Console = nil
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), envOwner+"="+string(text))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = t.Output()
	if _, err := cmd.StdinPipe(); err != nil { // open until this process ends
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			kill(t, cmd)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(line), &pid); err != nil {
		t.Fatal(err)
	}
	return cmd, pid
}

// kill sends SIGKILL to cmd and waits for it.
func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the owner ended by itself")
	}
}

// watch returns a pidfd, which becomes readable when the process ends.
func watch(t *testing.T, pid int) int {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// gone reports whether the process ends within limit.
func gone(t *testing.T, fd int, limit time.Duration) bool {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for end := time.Now().Add(limit); ; {
		n, err := unix.Poll(fds, max(0, int(time.Until(end).Milliseconds())))
		if err == nil {
			return n == 1
		}
		if err != unix.EINTR {
			t.Fatal(err)
		}
	}
}

// TestOwnerKilled checks that the machine ends at once when its owner is
// killed.
func TestOwnerKilled(t *testing.T) {
	cfg, _ := guest(t, vmm.MicroVM)
	cmd, pid := startOwner(t, cfg)
	fd := watch(t, pid)
	if gone(t, fd, 0) {
		t.Fatal("the machine ended before its owner")
	}
	kill(t, cmd)
	if !gone(t, fd, bootLimit) {
		t.Error("the machine has not ended with its owner")
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}

// TestTerminalSignals checks that Ctrl-C at the owner's terminal does not reach
// QEMU.
func TestTerminalSignals(t *testing.T) {
	cfg, _ := guest(t, vmm.MicroVM)
	cmd, pid := startOwner(t, cfg)
	fd := watch(t, pid)
	if sid, err := unix.Getsid(pid); sid != pid || err != nil {
		t.Errorf("session %d, %v, want %d, its own", sid, err, pid)
	}
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if gone(t, fd, time.Second) {
		t.Error("SIGINT to the owner's process group ended the machine")
	}
	kill(t, cmd)
}

// TestStartingThreadEnds checks that the machine keeps running when the thread
// that called Start ends.
func TestStartingThreadEnds(t *testing.T) {
	cfg, _ := guest(t, vmm.MicroVM)
	started := make(chan *qemu.Machine)
	go func() {
		runtime.LockOSThread() // not unlocked, so the thread ends with the goroutine
		m, err := qemu.Monitor{}.Start(t.Context(), cfg)
		if err != nil {
			t.Error(err)
		}
		started <- m
	}()
	m := <-started
	if m == nil {
		return
	}
	fd := watch(t, m.PID())
	if gone(t, fd, time.Second) {
		t.Error("the machine died with the thread that called Start")
	}
	if err := m.Kill(); err != nil {
		t.Error(err)
	}
}

// TestPlainUser repeats tests as a user without groups or privileges.
func TestPlainUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a second user needs root; the other tests ran as a plain one")
	}
	cfg, _ := guest(t, vmm.MicroVM)
	binary := testBinary(t)
	dir := filepath.Dir(binary)
	kernel, initrd, scratch := filepath.Join(dir, "kernel"), filepath.Join(dir, "initrd"), filepath.Join(dir, "tmp")
	for from, to := range map[string]string{cfg.Kernel: kernel, cfg.Initrd: initrd} {
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, data, 0o644) // for another user
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(scratch, 0o700); err != nil {
		t.Fatal(err)
	}
	const user = 64321
	if err := os.Chown(scratch, user, user); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^(TestBoot|TestChooseAccelWithoutKVM|TestConfined)$/^microvm$", "-test.v")
	cmd.Dir = scratch
	cmd.Env = append(os.Environ(), envKernel+"="+kernel, envInitrd+"="+initrd, "TMPDIR="+scratch)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	out, err := cmd.CombinedOutput()
	for _, test := range []string{"TestBoot/microvm", "TestChooseAccelWithoutKVM", "TestConfined"} {
		if err != nil || !strings.Contains(string(out), "--- PASS: "+test) {
			t.Fatalf("%s: %v\n%s", test, err, out)
		}
	}
}
