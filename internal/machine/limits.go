package machine

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/machine/disk"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/spec"
)

// Limits protect the host from its machines. The zero value has the defaults.
type Limits struct {
	Machines    int   // largest number of machines; 0 is DefaultMachines
	DiskReserve int64 // bytes that a new machine must leave free; 0 is DefaultReserve
}

// The defaults of Limits.
const (
	DefaultMachines = 1000
	DefaultReserve  = 256 << 20 // bytes
)

// checkCount returns record.ErrTooMany if there are as many machines as l allows.
func (l *Limits) checkCount(machines int) error {
	if most := spec.OrDefault(l.Machines, DefaultMachines); machines >= most {
		return fmt.Errorf("make machine: there are %d: %w", machines, record.ErrTooMany)
	}
	return nil
}

// checkSpace returns an error if the file system of folder is nearly full, because
// the writes of the running guests would fail with ENOSPC.
func (l *Limits) checkSpace(folder string) error {
	free, inodes, err := freeSpace(folder)
	if err != nil {
		return err
	}
	if reserve := spec.OrDefault(l.DiskReserve, DefaultReserve); free < reserve {
		return fmt.Errorf("make machine: %w", &disk.SpaceError{Dir: folder, Need: reserve, Free: free})
	}
	if inodes == 0 {
		return fmt.Errorf("make machine: no inode is free in %s: %w", folder, syscall.ENOSPC)
	}
	return nil
}

// freeSpace returns the bytes and inodes that are free to this user. If the file
// system has no fixed number of inodes, inodes is 1.
func freeSpace(folder string) (bytes int64, inodes uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(folder, &st); err != nil {
		return 0, 0, fmt.Errorf("find free space of %s: %w", folder, err)
	}
	if st.Files == 0 {
		return int64(st.Bavail) * st.Bsize, 1, nil
	}
	return int64(st.Bavail) * st.Bsize, st.Ffree, nil
}

// memoryWarnings returns the remarks for the user of rec before it runs beside
// others.
func memoryWarnings(others []*record.Record, rec *record.Record) []string {
	others = slices.DeleteFunc(slices.Clone(others), func(o *record.Record) bool { return o.ID == rec.ID })
	warning, err := overcommit(others, rec.Config.Memory)
	if err != nil {
		warning = fmt.Sprintf("whether the host has memory for the machine is not known: %v", err)
	}
	if warning == "" {
		return nil
	}
	return []string{warning}
}

// overcommit returns a warning if the host's memory does not suffice for another
// machine of size memory beside the running ones, else "". It compares the sum
// of all sizes with the host's memory, and memory with the available part.
func overcommit(records []*record.Record, memory int64) (warning string, err error) {
	total, available, err := hostMemory()
	if err != nil {
		return "", err
	}
	sum, running := memory, 0
	for _, rec := range records {
		if rec.State == record.StateRunning {
			sum += rec.Config.Memory
			running++
		}
	}
	switch {
	case sum > total:
		return fmt.Sprintf("with %d running machines %d MiB of memory are promised, and the host has %d MiB",
			running, sum>>20, total>>20), nil
	case memory > available:
		return fmt.Sprintf("the machine may take %d MiB of memory, and %d MiB are available on the host",
			memory>>20, available>>20), nil
	}
	return "", nil
}

// hostMemory returns MemTotal and MemAvailable of proc_meminfo(5) in bytes.
func hostMemory() (total, available int64, err error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, 0, fmt.Errorf("read memory of the host: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		var to *int64
		switch name {
		case "MemTotal":
			to = &total
		case "MemAvailable":
			to = &available
		default:
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("read memory of the host: %w", err)
		}
		*to = kib << 10
	}
	if err := lines.Err(); err != nil {
		return 0, 0, fmt.Errorf("read memory of the host: %w", err)
	}
	if total == 0 || available == 0 {
		return 0, 0, errors.New("read memory of the host: /proc/meminfo lacks MemTotal or MemAvailable")
	}
	return total, available, nil
}
