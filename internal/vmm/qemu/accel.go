package qemu

import (
	"bytes"
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

// A verdict is what a probe found out, and for what it holds: one boot of the
// host, one program, and the caller's key.
type verdict struct {
	Boot    string    `json:"boot"`
	Program string    `json:"program"`
	Key     string    `json:"key"`
	Accel   vmm.Accel `json:"accel"`
	Notice  string    `json:"notice,omitempty"`
	Found   int64     `json:"found,omitempty"` // when it was TCG, in seconds since 1970
}

// slowLife is how long a verdict of TCG holds: what kept a machine from
// booting may have been a busy host or the want of memory.
const slowLife = 10 * time.Minute

// ChooseAccel says what machines like probe can be run with: KVM when probe
// has booted with it, because a /dev/kvm that opens may still hang or crash,
// as in a nested machine. A notice says why it is TCG and what to do about it.
// probe is a machine that prints answer on its console and powers off; its
// Accel and Console do not matter.
//
// The answer is kept in the file cachePath for this QEMU and for key, which
// names the kernel: KVM until the host's next boot, TCG for ten minutes. A cache that cannot be read
// means another probe.
func (m Monitor) ChooseAccel(ctx context.Context, probe vmm.Config, answer, cachePath, key string) (vmm.Accel, string, error) {
	program, err := m.program()
	if err != nil {
		return "", "", err
	}
	if notice := m.refusal(); notice != "" {
		return vmm.TCG, notice, nil
	}
	want, err := question(program, key)
	if err != nil {
		return "", "", fmt.Errorf("choose accelerator: %w", err)
	}
	if known, ok := remembered(cachePath, want); ok {
		return known.Accel, known.Notice, nil
	}
	found := want
	found.Accel = vmm.KVM
	if err := m.probe(ctx, probe, answer); err != nil {
		if ctx.Err() != nil {
			return "", "", fmt.Errorf("choose accelerator: %w", ctx.Err())
		}
		if inFault := (*vmm.ExitError)(nil); !errors.As(err, &inFault) && !errors.Is(err, errProbe) {
			return "", "", fmt.Errorf("choose accelerator: %w", err)
		}
		found.Found = time.Now().Unix()
		found.Accel, found.Notice = vmm.TCG, m.slow("a machine does not boot with it: "+lastWords(err))
	}
	if err := remember(cachePath, found); err != nil {
		return "", "", fmt.Errorf("choose accelerator: %w", err)
	}
	return found.Accel, found.Notice, nil
}

// lastWords is what QEMU said of its end, or err where it said nothing.
func lastWords(err error) string {
	exit := (*vmm.ExitError)(nil)
	if !errors.As(err, &exit) || exit.Output == "" {
		return err.Error()
	}
	return exit.Output[strings.LastIndexByte(exit.Output, '\n')+1:]
}

func (m Monitor) kvm() string {
	if m.KVM == "" {
		return "/dev/kvm"
	}
	return m.KVM
}

// refusal is why KVM cannot even be tried, or "".
func (m Monitor) refusal() string {
	f, err := os.OpenFile(m.kvm(), os.O_RDWR, 0)
	switch {
	case err == nil:
		f.Close()
		return ""
	case errors.Is(err, fs.ErrNotExist):
		return m.slow("it does not exist: load the module kvm_intel or kvm_amd, or enable nested virtualisation")
	case errors.Is(err, fs.ErrPermission):
		return m.slow("this user may not open it: join its group, kvm on most hosts, and log in again")
	}
	return m.slow(err.Error())
}

func (m Monitor) slow(why string) string {
	return "no KVM, machines run several times slower: " + m.kvm() + ": " + why
}

// errProbe says that the machine of a probe was no good.
var errProbe = errors.New("no sign of life")

// probe boots cfg with KVM and looks for answer on its console.
func (m Monitor) probe(ctx context.Context, cfg vmm.Config, answer string) error {
	limit := m.ProbeLimit
	if limit == 0 {
		limit = vmm.ProbeLimit
	}
	console := &sighting{want: []byte(answer)}
	cfg.Accel, cfg.Console = vmm.KVM, console
	timed, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	machine, err := m.Start(timed, cfg)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w within %s", errProbe, limit.Round(time.Millisecond))
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
		if console.seen { // it runs; only its power-off hung
			return nil
		}
		return fmt.Errorf("%w within %s", errProbe, limit.Round(time.Millisecond))
	}
	if err := machine.Wait(); err != nil {
		return err
	}
	if !console.seen {
		return fmt.Errorf("%w before its end", errProbe)
	}
	return nil
}

// A sighting is a writer that looks for want in what is written.
type sighting struct {
	want, tail []byte
	seen       bool
}

func (s *sighting) Write(p []byte) (int, error) {
	s.tail = append(s.tail, p...)
	s.seen = s.seen || bytes.Contains(s.tail, s.want)
	if over := len(s.tail) - len(s.want); over > 0 {
		s.tail = append(s.tail[:0], s.tail[over:]...)
	}
	return len(p), nil
}

// question is a verdict without its answer. The program is named by its path,
// size and time of change rather than by asking it for its version, which
// takes longer than all the rest.
func question(program, key string) (verdict, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return verdict{}, err
	}
	st, err := os.Stat(program)
	if err != nil {
		return verdict{}, err
	}
	return verdict{
		Boot:    strings.TrimSpace(string(boot)),
		Program: fmt.Sprintf("%s %d %d", program, st.Size(), st.ModTime().UnixNano()),
		Key:     key,
	}, nil
}

// remembered is the verdict in the file path if it answers want.
func remembered(path string, want verdict) (verdict, bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return verdict{}, false // writing it anew says what is wrong
	}
	var known verdict
	if json.Unmarshal(data, &known) != nil {
		return verdict{}, false
	}
	want.Accel, want.Notice, want.Found = known.Accel, known.Notice, known.Found
	age := time.Since(time.Unix(known.Found, 0))
	valid := known.Accel == vmm.KVM || known.Accel == vmm.TCG && known.Notice != "" && age >= 0 && age < slowLife
	return known, valid && known == want
}

func remember(path string, v verdict) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, append(data, '\n'), 0o600)
}
