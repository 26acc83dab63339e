package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/qemu"
)

// A Check is one thing that machines need of their host.
type Check struct {
	Name   string `json:"name"`
	Level  Level  `json:"level"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"` // what the user can do
}

// Examine looks at the host, the machines and what they may have left, and
// changes nothing.
func (s *Store) Examine(ctx context.Context) (Report, error) {
	r := Report{Checks: []Check{
		checkMonitor(ctx), checkKVM("/dev/kvm"), s.checkDisks(ctx), s.checkRuntime(), s.checkFree(), checkMemory(),
	}}
	ids, err := s.ids()
	if err != nil {
		return r, err
	}
	var errs []error
	for _, id := range ids {
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		errs = append(errs, s.examine(id, &r))
	}
	strays, err := s.strays()
	errs = append(errs, err)
	for _, path := range slices.Sorted(maps.Keys(strays)) {
		r.Machines = append(r.Machines, strays[path])
	}
	r.Leftovers, err = s.leftovers(ctx)
	return r, errors.Join(append(errs, err)...)
}

func (s *Store) examine(id string, r *Report) error {
	if s.running(id) {
		return s.adopt(id, r)
	}
	l, err := s.look(id)
	if err != nil {
		return err
	}
	if f := l.finding(nil); f != nil {
		r.Machines = append(r.Machines, *f)
	}
	if l.wanted() {
		r.Restart = append(r.Restart, id)
	}
	files, err := asides(l.dir)
	if len(files) > 0 {
		f := Finding{ID: id, Level: LevelWarning, Detail: "damaged files were set aside: " + strings.Join(files, ", ")}
		f.Fix = "look at them and delete them"
		if l.rec != nil {
			f.Name = l.rec.Config.Name
		}
		r.Machines = append(r.Machines, f)
	}
	return err
}

// leftovers returns what the host has with the marks of machines that do not
// need it: those that are gone, and those that do not run and do not have it
// in their ledgers. What is in a ledger is for Reconcile.
func (s *Store) leftovers(ctx context.Context) ([]ledger.Entry, error) {
	found, err := resource.Find(ctx, resource.Scope{Data: s.root})
	errs := []error{err}
	var out []ledger.Entry
	for _, e := range found {
		needed, err := s.needs(e)
		if !needed && err == nil {
			out = append(out, e)
		}
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
}

// needs reports whether e is of a machine that runs or has it in its ledger,
// or of which that cannot be known.
func (s *Store) needs(e ledger.Entry) (bool, error) {
	id := e.Owner.ID()
	if _, err := os.Lstat(s.dataDir(id)); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return true, fmt.Errorf("look at machine %s: %w", id, err)
	}
	if s.running(id) {
		return true, nil
	}
	l, err := s.look(id)
	if err != nil || l.fate == fateLeave || l.noLedger {
		return true, err
	}
	for _, o := range l.entries {
		if o.Kind == e.Kind && o.Name == e.Name {
			return true, nil
		}
	}
	return false, nil
}

// Repair does what can be done about a report of Examine: it reconciles the
// machines, and removes the leftovers that the report lists and that still are
// ones. It goes on after a failure; done has what was done.
func (s *Store) Repair(ctx context.Context, r Report) (done []string, err error) {
	settled, err := s.Reconcile(ctx)
	errs := []error{err}
	for _, f := range settled.Machines {
		if f.Fixable {
			done = append(done, "machine "+orDefault(f.Name, f.ID)+": "+f.Fix)
		}
	}
	now, err := s.leftovers(ctx)
	errs = append(errs, err)
	for _, e := range now {
		if !lists(r.Leftovers, e) {
			continue
		}
		if err := s.removeLeftover(ctx, e); err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", &e, err))
			continue
		}
		done = append(done, fmt.Sprintf("machine %s: remove %s", e.Owner.ID(), &e))
	}
	return done, errors.Join(errs...)
}

func lists(entries []ledger.Entry, e ledger.Entry) bool {
	for _, o := range entries {
		if o.Kind == e.Kind && o.Name == e.Name && o.Owner == e.Owner && o.PID == e.PID {
			return true
		}
	}
	return false
}

// removeLeftover keeps the machine, if it is there, from being started
// meanwhile.
func (s *Store) removeLeftover(ctx context.Context, e ledger.Entry) error {
	dir, err := s.claim(ctx, e.Owner.ID())
	if err == nil {
		defer dir.unlock()
	} else if !errors.Is(err, ErrNotFound) {
		return err
	}
	return resource.Remove(ctx, e)
}

func checkMonitor(ctx context.Context) Check {
	path, version, err := qemu.Monitor{}.Find(ctx)
	switch {
	case errors.Is(err, vmm.ErrMissing):
		return Check{"qemu", LevelError, err.Error(), "install it: apt install qemu-system-x86 qemu-utils"}
	case err != nil:
		return Check{"qemu", LevelError, err.Error(), "install it anew: apt install --reinstall qemu-system-x86"}
	}
	c := Check{"qemu", LevelOK, path + ", version " + version, ""}
	if !isRecent(version) {
		c.Level, c.Fix = LevelError, "install version 7.2 or newer"
	}
	return c
}

// isRecent reports whether a version of QEMU has what machines need.
func isRecent(version string) bool {
	const major, minor = 7, 2
	parts := strings.Split(version, ".")
	if len(parts) < 2 {
		return false
	}
	first, err := strconv.Atoi(parts[0])
	second, minorErr := strconv.Atoi(parts[1])
	return err == nil && minorErr == nil && (first > major || first == major && second >= minor)
}

// checkKVM looks at the device that KVM is used by. Without it machines are
// slow, and run.
func checkKVM(device string) Check {
	c := Check{Name: "kvm", Level: LevelWarning}
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.Detail = device + " is not there: machines are emulated, which is slow"
		c.Fix = "switch virtualization on in the firmware and load kvm_intel or kvm_amd; in a virtual machine, allow nesting"
		return c
	case errors.Is(err, fs.ErrPermission):
		c.Detail = "this user may not open " + device + ": machines are emulated, which is slow"
		c.Fix = joinGroup(device)
		return c
	case err != nil:
		c.Detail = err.Error()
		return c
	}
	defer f.Close()
	const getVersion, stable = 0xae00, 12 // KVM_GET_API_VERSION, KVM_API_VERSION of linux/kvm.h
	version, err := unix.IoctlRetInt(int(f.Fd()), getVersion)
	if err != nil || version != stable {
		c.Detail = fmt.Sprintf("%s does not answer as KVM does (version %d, %v)", device, version, err)
		return c
	}
	c.Level, c.Detail = LevelOK, device+" can be opened"
	return c
}

// joinGroup says how a user gets to open a device.
func joinGroup(device string) string {
	info, err := os.Stat(device)
	if err != nil {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode().Perm()&0o060 != 0o060 || st.Gid == 0 {
		return "let a group of this user read and write " + device
	}
	name := strconv.FormatUint(uint64(st.Gid), 10)
	if g, err := user.LookupGroupId(name); err == nil {
		name = g.Name
	}
	return "join its group and log in again: sudo usermod -aG " + name + " $USER"
}

// checkDisks says which disk drivers work, and which one is taken.
func (s *Store) checkDisks(ctx context.Context) Check {
	c := Check{Name: "disks", Level: LevelError, Fix: "see what each of them needs"}
	var words []string
	for _, d := range Probe(ctx, s.data) {
		word := string(d.Driver) + " does not work"
		switch {
		case d.Auto:
			word = string(d.Driver) + " is taken"
			c.Level, c.Fix = LevelOK, ""
		case d.Usable:
			word = string(d.Driver) + " works"
		}
		words = append(words, word+" ("+d.Why+")")
	}
	c.Detail = strings.Join(words, ", ")
	return c
}

func (s *Store) checkRuntime() Check {
	if err := checkPrivate(s.runtime); err != nil {
		return Check{"runtime", LevelError, err.Error(), "chmod 700 " + s.runtime}
	}
	return Check{"runtime", LevelOK, s.runtime + " is private", ""}
}

func (s *Store) checkFree() Check {
	free, inodes, err := room(s.data)
	if err != nil {
		return Check{"space", LevelError, err.Error(), ""}
	}
	c := Check{"space", LevelOK, fmt.Sprintf("%d MiB are free in %s", free>>20, s.data), ""}
	if err := s.Limits.checkSpace(s.data); err != nil {
		c.Level, c.Fix = LevelError, "free some: banger prune and banger image prune remove what is not needed"
		if inodes == 0 {
			c.Detail = "no inode is free in " + s.data
		}
	}
	return c
}

func checkMemory() Check {
	total, available, err := hostMemory()
	if err != nil {
		return Check{"memory", LevelWarning, err.Error(), ""}
	}
	c := Check{"memory", LevelOK, fmt.Sprintf("%d of %d MiB are available", available>>20, total>>20), ""}
	if available < DefaultMemory {
		c.Level = LevelWarning
	}
	return c
}
