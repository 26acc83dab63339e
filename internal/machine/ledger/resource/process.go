package resource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/machine/ledger"
)

// markVariable is in the environment of a machine's processes. What they
// start inherits it, and goes with them.
const markVariable = "BANGER_MACHINE"

func processMark(owner ledger.Owner, name string) string {
	return markVariable + "=" + string(owner) + "/" + name
}

// BootID names the host's boot: /proc/sys/kernel/random/boot_id, random(4).
func BootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot ID: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// A stat is what is needed of /proc/PID/stat, proc(5).
type stat struct {
	state   byte   // field 3
	threads int    // field 20
	start   uint64 // field 22, in clock ticks since boot
}

func readStat(pid int) (stat, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, err
	}
	return parseStat(string(data))
}

func parseStat(s string) (stat, error) {
	// The name of the program is in parentheses and may have some itself.
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	const state, threads, start = 0, 20 - 3, 22 - 3 // the first is field 3
	if len(fields) <= start {
		return stat{}, errors.New("process status has too few fields")
	}
	n, err := strconv.ParseUint(fields[start], 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("process status: start time: %w", err)
	}
	left, err := strconv.Atoi(fields[threads])
	if err != nil {
		return stat{}, fmt.Errorf("process status: number of threads: %w", err)
	}
	return stat{fields[state][0], left, n}, nil
}

// ended reports whether the process is gone but for its parent's wait. The
// state is that of its first thread, which may end before the others: they
// still hold its files and locks.
func (s stat) ended() bool { return s.state == 'X' || s.state == 'Z' && s.threads <= 1 }

// noProcess reports whether err says that a process is not there.
func noProcess(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

// Rebooted reports whether the host was booted again since e was made.
func Rebooted(e ledger.Entry) (bool, error) {
	boot, err := BootID()
	return err == nil && boot != e.Boot, err
}

// Alive reports whether the process of an identified entry runs.
func Alive(e ledger.Entry) (bool, error) {
	boot, err := BootID()
	if err != nil || boot != e.Boot || e.PID == 0 {
		return false, err
	}
	s, err := readStat(e.PID)
	if noProcess(err) {
		return false, nil
	}
	return err == nil && s.start == e.Start && !s.ended(), err
}

// removeProcess kills the process of e, where it is known, and then those with
// its mark: what it started, or itself where it was not identified.
func removeProcess(ctx context.Context, e *ledger.Entry) error {
	if e.PID != 0 {
		if err := kill(ctx, e.PID, e.Start); err != nil {
			return err
		}
	}
	return until(ctx, func() (gone bool, err error) {
		found, err := findProcesses(func(o ledger.Owner, name string) bool { return o == e.Owner && name == e.Name })
		errs := []error{err}
		for _, p := range found {
			errs = append(errs, kill(ctx, p.PID, p.Start))
		}
		// Those may have started others before they were killed.
		return len(found) == 0, errors.Join(errs...)
	})
}

// kill ends the process pid that started at start, and no other.
func kill(ctx context.Context, pid int, start uint64) error {
	if pid == os.Getpid() {
		return errors.New("it is this process")
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if noProcess(err) || errors.Is(err, unix.EINVAL) { // EINVAL: the number is a thread's
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	// What fd stands for cannot change any more, so this is about the same.
	s, err := readStat(pid)
	if noProcess(err) || (err == nil && (s.start != start || s.ended())) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at process %d: %w", pid, err)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); noProcess(err) {
		return nil
	} else if err != nil {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	return until(ctx, func() (bool, error) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		if errors.Is(err, unix.EINTR) {
			err = nil
		}
		return n > 0, err
	})
}

// findProcesses returns entries of the processes whose mark is wanted, this
// one apart. Processes whose environment may not be read are somebody else's.
func findProcesses(want func(owner ledger.Owner, name string) bool) ([]ledger.Entry, error) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	boot, err := BootID()
	if err != nil {
		return nil, err
	}
	var out []ledger.Entry
	var errs []error
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue // no process, or this one
		}
		e, err := examine(pid)
		switch {
		case noProcess(err) || errors.Is(err, fs.ErrPermission):
		case err != nil:
			errs = append(errs, fmt.Errorf("look at process %d: %w", pid, err))
		case e != nil && want(e.Owner, e.Name):
			e.Boot = boot
			out = append(out, *e)
		}
	}
	return out, errors.Join(errs...)
}

// examine returns the entry of a process that has a mark, else nil.
func examine(pid int) (*ledger.Entry, error) {
	before, err := readStat(pid)
	if err != nil || before.ended() {
		return nil, err
	}
	owner, name, err := readMark(pid)
	if err != nil || name == "" {
		return nil, err
	}
	// The number may have gone to another process meanwhile.
	after, err := readStat(pid)
	if err != nil || after.start != before.start {
		return nil, err
	}
	return &ledger.Entry{Kind: ledger.Process, Name: name, Owner: owner, PID: pid, Start: before.start}, nil
}

// maxEnvironment bounds the bytes of an environment that are looked through:
// a quarter of the usual stack, as execve(2) has it, is 2 MiB.
const maxEnvironment = 2 << 20

func readMark(pid int) (owner ledger.Owner, name string, err error) {
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxEnvironment))
	if errors.Is(err, syscall.EIO) { // its memory went as it ended
		err = fs.ErrNotExist
	}
	if err != nil {
		return "", "", err
	}
	for v := range bytes.SplitSeq(data, []byte{0}) {
		value, ok := strings.CutPrefix(string(v), markVariable+"=")
		if !ok {
			continue
		}
		first, rest, _ := strings.Cut(value, "/")
		if owner, ok := ledger.ParseOwner(first); ok {
			return owner, rest, nil
		}
	}
	return "", "", nil
}
