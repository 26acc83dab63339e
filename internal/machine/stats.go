package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api"
)

// stats asks the guest and the host.
func (v *supervisor) stats(ctx context.Context) (api.Stats, error) {
	m, err := v.running()
	if err != nil {
		return api.Stats{}, err
	}
	const limit = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	guest, err := m.agent.Status(ctx)
	if err != nil {
		return api.Stats{}, fmt.Errorf("ask the machine for its state: %w", err)
	}
	rec := v.journal.record()
	out := api.Stats{
		ID: rec.ID, Name: rec.Config.Name, Time: time.Now().UTC(), Memory: guest.Memory, Limit: rec.Config.Memory, Uptime: guest.Uptime,
	}
	out.Disk = allocated(filepath.Join(v.journal.dir.data, rec.Disk.File))
	return out, processStats(m.monitor.PID(), &out)
}

// allocated is how many bytes a file has on the host.
func allocated(path string) int64 {
	const block = 512 // st_blocks of stat(2)
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0 // a disk that is a device has none
	}
	return st.Blocks * block
}

// processStats reads what the kernel counts of a process: proc(5).
func processStats(pid int, out *api.Stats) error {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return fmt.Errorf("look at the monitor's process: %w", err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const (
		first         = 3 // the number of fields[0]
		utime, stime  = 14 - first, 15 - first
		rss           = 24 - first // pages
		ticksInSecond = 100        // USER_HZ, which is the same on all architectures Linux has today
	)
	if len(fields) <= rss {
		return errors.New("look at the monitor's process: its status has too few fields")
	}
	out.CPU = float64(number(fields[utime])+number(fields[stime])) / ticksInSecond
	out.RSS = number(fields[rss]) * int64(os.Getpagesize())
	io, err := os.ReadFile(dir + "/io")
	if err != nil {
		return nil //nolint:nilerr // a kernel need not count it, nor tell
	}
	for line := range strings.Lines(string(io)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch name {
		case "read_bytes":
			out.Read = number(value)
		case "write_bytes":
			out.Write = number(value)
		}
	}
	return nil
}

// number is what the kernel has printed.
func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
