package qemu

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/banger-vm/banger/internal/base/atomicfile"
	"github.com/banger-vm/banger/internal/vmm"
)

// defaultProbeTimeout is the time limit for the machine of a probe.
const defaultProbeTimeout = 10 * time.Second

// A probeResult is the result of a probe, together with the conditions under
// which it is valid: the host's boot, the program, and the caller's key.
type probeResult struct {
	Boot    string    `json:"boot"`
	Program string    `json:"program"`
	Key     string    `json:"key"`
	Accel   vmm.Accel `json:"accel"`
	Notice  string    `json:"notice,omitempty"`
	Found   int64     `json:"found,omitempty"` // time of a result of TCG, in seconds since 1970
}

// ProbeFile is the name of the file in the cache that has the result of the last probe.
const ProbeFile = "kvm.json"

// tcgMaxAge is how long a result of TCG is valid. A busy host or a lack of
// memory may have kept the machine from booting.
const tcgMaxAge = 10 * time.Minute

// ChooseAccel returns the accelerator for machines like probe. It returns KVM
// if probe has booted with it: a /dev/kvm that can be opened may still hang or
// crash, for example in a nested machine. If it returns TCG, the notice has the
// device, the reason and the remedy; it may have a long line of QEMU's. probe is a machine that prints answer on its console
// and powers off. Its Accel and Console do not matter.
//
// ChooseAccel stores the result in the file cachePath, for this QEMU and for
// key, which identifies the kernel. KVM is valid until the host boots again,
// TCG for ten minutes. If the cache cannot be read, ChooseAccel probes again.
func (m Monitor) ChooseAccel(ctx context.Context, probe vmm.Config, answer, cachePath, key string) (vmm.Accel, string, error) {
	program, err := m.program()
	if err != nil {
		return "", "", err
	}
	if notice := m.kvmProblem(); notice != "" {
		return vmm.TCG, notice, nil
	}
	want, err := newProbeResult(program, key)
	if err != nil {
		return "", "", fmt.Errorf("choose accelerator: %w", err)
	}
	if known, ok := cachedResult(cachePath, want); ok {
		return known.Accel, known.Notice, nil
	}
	found := want
	found.Accel = vmm.KVM
	if err := m.probe(ctx, probe, answer); err != nil {
		if ctx.Err() != nil {
			return "", "", fmt.Errorf("choose accelerator: %w", ctx.Err())
		}
		if exit := (*vmm.ExitError)(nil); !errors.As(err, &exit) && !errors.Is(err, errNoAnswer) {
			return "", "", fmt.Errorf("choose accelerator: %w", err)
		}
		found.Found = time.Now().Unix()
		found.Accel, found.Notice = vmm.TCG, m.noKVMNotice("a machine does not boot with it: "+lastOutputLine(err))
	}
	if err := storeResult(cachePath, found); err != nil {
		return "", "", fmt.Errorf("choose accelerator: %w", err)
	}
	return found.Accel, found.Notice, nil
}

// lastOutputLine returns the last line of QEMU's output, or the text of err if
// there is no output.
func lastOutputLine(err error) string {
	exit := (*vmm.ExitError)(nil)
	if !errors.As(err, &exit) || exit.Output == "" {
		return err.Error()
	}
	return exit.Output[strings.LastIndexByte(exit.Output, '\n')+1:]
}

func (m Monitor) kvmDevice() string {
	return cmp.Or(m.KVM, "/dev/kvm")
}

// kvmProblem returns the reason why KVM cannot be tried, or "".
func (m Monitor) kvmProblem() string {
	f, err := os.OpenFile(m.kvmDevice(), os.O_RDWR, 0)
	switch {
	case err == nil:
		f.Close()
		return ""
	case errors.Is(err, fs.ErrNotExist):
		return m.noKVMNotice("it does not exist: load the module kvm_intel or kvm_amd, or enable nested virtualisation")
	case errors.Is(err, fs.ErrPermission):
		return m.noKVMNotice("this user may not open it: join its group, kvm on most hosts, and log in again")
	}
	return m.noKVMNotice(err.Error())
}

func (m Monitor) noKVMNotice(why string) string { return m.kvmDevice() + ": " + why }

// KnownAccel returns the result of the last probe that ChooseAccel has stored in the
// file cachePath since the host was booted, of this QEMU and any kernel. accel is "" if
// there is none. why is the reason for TCG.
func (m Monitor) KnownAccel(cachePath string) (accel vmm.Accel, why string, err error) {
	program, err := m.program()
	if err != nil {
		return "", "", err
	}
	want, err := newProbeResult(program, "")
	if err != nil {
		return "", "", fmt.Errorf("read the result of a probe: %w", err)
	}
	var known probeResult
	data, err := os.ReadFile(cachePath)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("read the result of a probe: %w", err)
	}
	if err := json.Unmarshal(data, &known); err != nil || known.Boot != want.Boot || known.Program != want.Program {
		return "", "", nil //nolint:nilerr // the next start of a machine probes again
	}
	return known.Accel, known.Notice, nil
}

// errNoAnswer means that the machine of a probe did not print the answer.
var errNoAnswer = errors.New("no sign of life")

// probe boots cfg with KVM and looks for answer on its console.
func (m Monitor) probe(ctx context.Context, cfg vmm.Config, answer string) error {
	limit := cmp.Or(m.ProbeTimeout, defaultProbeTimeout)
	console := &matchWriter{want: []byte(answer)}
	cfg.Accel, cfg.Console = vmm.KVM, console
	timed, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	machine, err := m.Start(timed, cfg)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w within %s", errNoAnswer, limit.Round(time.Millisecond))
	}
	if err != nil {
		return err
	}
	select {
	case <-machine.Done():
	case <-timed.Done():
		if err := machine.Kill(); err != nil {
			return err
		}
		if console.seen { // the machine works; only its shutdown hung
			return nil
		}
		return fmt.Errorf("%w within %s", errNoAnswer, limit.Round(time.Millisecond))
	}
	if err := machine.Wait(); err != nil {
		return err
	}
	if !console.seen {
		return fmt.Errorf("%w before its end", errNoAnswer)
	}
	return nil
}

// A matchWriter looks for want in the data that is written to it.
type matchWriter struct {
	want, tail []byte
	seen       bool
}

func (s *matchWriter) Write(p []byte) (int, error) {
	s.tail = append(s.tail, p...)
	s.seen = s.seen || bytes.Contains(s.tail, s.want)
	if over := len(s.tail) - len(s.want); over > 0 {
		s.tail = append(s.tail[:0], s.tail[over:]...)
	}
	return len(p), nil
}

// newProbeResult returns a result without an accelerator. It identifies the
// program by path, size and modification time, because running the program to
// get its version takes longer than everything else.
func newProbeResult(program, key string) (probeResult, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return probeResult{}, err
	}
	st, err := os.Stat(program)
	if err != nil {
		return probeResult{}, err
	}
	return probeResult{
		Boot:    strings.TrimSpace(string(boot)),
		Program: fmt.Sprintf("%s %d %d", program, st.Size(), st.ModTime().UnixNano()),
		Key:     key,
	}, nil
}

// cachedResult returns the result in the file path if it is valid for want.
func cachedResult(path string, want probeResult) (probeResult, bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return probeResult{}, false // storing the new result reports the error
	}
	var known probeResult
	if json.Unmarshal(data, &known) != nil {
		return probeResult{}, false
	}
	want.Accel, want.Notice, want.Found = known.Accel, known.Notice, known.Found
	age := time.Since(time.Unix(known.Found, 0))
	valid := known.Accel == vmm.KVM || known.Accel == vmm.TCG && known.Notice != "" && age >= 0 && age < tcgMaxAge
	return known, valid && known == want
}

func storeResult(path string, v probeResult) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, append(data, '\n'), 0o600)
}
