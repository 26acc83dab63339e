package supervisor

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

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/machine/disk"
)

// stats returns the machine's use of resources, as the guest and the host see
// it.
func (v *supervisor) stats(ctx context.Context) (api.Stats, error) {
	m, err := v.loop.running()
	if err != nil {
		return api.Stats{}, err
	}
	if err := m.pauseError(0); err != nil {
		return api.Stats{}, err
	}
	const limit = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	guest, err := m.agent.Status(ctx)
	if err != nil {
		return api.Stats{}, fmt.Errorf("ask the machine for its state: %w", err)
	}
	rec := v.journal.Record()
	out := api.Stats{
		ID: rec.ID, Name: rec.Config.Name, Time: time.Now().UTC(), Memory: guest.Memory, Limit: rec.Config.Memory, Uptime: guest.Uptime,
	}
	out.Disk = disk.Allocated(filepath.Join(v.journal.Dir.Data, rec.Disk.File))
	return out, processStats(m.monitor.PID(), &out)
}

// processStats sets the fields that the kernel counts for a process; see proc(5).
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
		ticksInSecond = 100        // USER_HZ, the same on all architectures that Linux runs on
	)
	if len(fields) <= rss {
		return errors.New("look at the monitor's process: its status has too few fields")
	}
	out.CPU = float64(number(fields[utime])+number(fields[stime])) / ticksInSecond
	out.RSS = number(fields[rss]) * int64(os.Getpagesize())
	io, err := os.ReadFile(dir + "/io")
	if err != nil {
		return nil //nolint:nilerr // a kernel may be built without this file
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

// number returns the number that the kernel has printed, or 0.
func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
