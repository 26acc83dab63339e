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

// markVariable is a variable in the environment of a machine's processes. Their
// children inherit it, so that Remove finds and kills them too.
const markVariable = "BANGER_MACHINE"

func processMark(owner ledger.Owner, name string) string {
	return markVariable + "=" + string(owner) + "/" + name
}

// BootID returns the ID of the host's current boot:
// /proc/sys/kernel/random/boot_id, random(4).
func BootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot ID: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// A stat has the fields of /proc/PID/stat, proc(5), that this package uses.
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
	// The program name is in parentheses and may contain parentheses.
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	const state, threads, start = 0, 20 - 3, 22 - 3 // fields[0] is field 3
	if len(fields) <= start {
		return stat{}, errors.New("process status has too few fields")
	}
	n, err := strconv.ParseUint(fields[start], 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("process status: start time: %w", err)
	}
	count, err := strconv.Atoi(fields[threads])
	if err != nil {
		return stat{}, fmt.Errorf("process status: number of threads: %w", err)
	}
	return stat{fields[state][0], count, n}, nil
}

// ended reports whether all threads of the process have ended, so that it waits
// only for its parent to reap it. The state is the one of the first thread. If
// that thread ends before the others, they still hold the process's files and
// locks.
func (s stat) ended() bool { return s.state == 'X' || s.state == 'Z' && s.threads <= 1 }

// isNoProcess reports whether err means that a process does not exist.
func isNoProcess(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

// Rebooted reports whether the host has rebooted since the resource of e was
// made.
func Rebooted(e ledger.Entry) (bool, error) {
	boot, err := BootID()
	return err == nil && boot != e.Boot, err
}

// Alive reports whether the process of e runs. It is false if e was not
// identified.
func Alive(e ledger.Entry) (bool, error) {
	boot, err := BootID()
	if err != nil || boot != e.Boot || e.PID == 0 {
		return false, err
	}
	s, err := readStat(e.PID)
	if isNoProcess(err) {
		return false, nil
	}
	return err == nil && s.start == e.Start && !s.ended(), err
}

// removeProcess kills the process of e if e was identified. Then it kills each
// process with the mark of e: the descendants, and the process itself if e was
// not identified.
func removeProcess(ctx context.Context, e *ledger.Entry) error {
	if e.PID != 0 {
		if err := kill(ctx, e.PID, e.Start); err != nil {
			return err
		}
	}
	confirmed := e.PID == 0 // by a search that found nothing
	return until(ctx, func() (gone bool, err error) {
		found, err := findProcesses(func(o ledger.Owner, name string) bool { return o == e.Owner && name == e.Name })
		errs := []error{err}
		for _, p := range found {
			errs = append(errs, kill(ctx, p.PID, p.Start))
		}
		// A process may have started others before it was killed, so search again. And once more: the environment
		// of a process is empty for a moment while it executes a program, so a search may miss it.
		gone = len(found) == 0 && confirmed
		confirmed = len(found) == 0
		return gone, errors.Join(errs...)
	})
}

// kill kills the process pid if it started at start, and waits for its end.
func kill(ctx context.Context, pid int, start uint64) error {
	if pid == os.Getpid() {
		return errors.New("the process is this one")
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if isNoProcess(err) || errors.Is(err, unix.EINVAL) { // EINVAL: pid is the number of a thread now
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	// fd refers to one process for good, so if the start time agrees, the signal
	// goes to the process that is meant.
	s, err := readStat(pid)
	if isNoProcess(err) || (err == nil && (s.start != start || s.ended())) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read status of process %d: %w", pid, err)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); isNoProcess(err) {
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

// findProcesses returns entries for the processes whose mark want accepts, except
// this process. It skips processes whose environment this user may not read:
// they belong to another user.
func findProcesses(want func(owner ledger.Owner, name string) bool) ([]ledger.Entry, error) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var out []ledger.Entry
	var errs []error
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue // not a process, or this one
		}
		e, err := markedProcess(pid)
		switch {
		case isNoProcess(err) || errors.Is(err, fs.ErrPermission):
		case err != nil:
			errs = append(errs, fmt.Errorf("read mark of process %d: %w", pid, err))
		case e != nil && want(e.Owner, e.Name):
			out = append(out, *e)
		}
	}
	return out, errors.Join(errs...)
}

// markedProcess returns the entry of a process with a mark, or nil if it has none.
func markedProcess(pid int) (*ledger.Entry, error) {
	before, err := readStat(pid)
	if err != nil || before.ended() {
		return nil, err
	}
	owner, name, err := readMark(pid)
	if err != nil || name == "" {
		return nil, err
	}
	// The number may belong to a new process since the first read.
	after, err := readStat(pid)
	if err != nil || after.start != before.start {
		return nil, err
	}
	return &ledger.Entry{Kind: ledger.Process, Name: name, Owner: owner, PID: pid, Start: before.start}, nil
}

// maxEnvironment is the number of bytes of an environment that are searched. By
// execve(2) an environment has at most a quarter of the stack limit, which is
// usually 8 MiB.
const maxEnvironment = 2 << 20

// readMark returns the owner and the name in the mark of a process, or an empty
// name if it has no mark.
func readMark(pid int) (owner ledger.Owner, name string, err error) {
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxEnvironment))
	if errors.Is(err, syscall.EIO) { // the process has ended and has no memory
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
