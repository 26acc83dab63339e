// Package boot is process 1 of a machine: from the kernel's first step in the
// initramfs to the root file system in place, and then, unless the image's
// own init takes over, to the machine's end. It owns mounts, modules, the
// network's set-up, reaping and powering off. It runs no command and talks to
// no host: the agent does, which it starts as a child. It writes nothing into
// the image's files but what docs/guest.md lists.
//
// Whatever goes wrong becomes one line on the console and a machine that
// powers off: neither a machine that hangs nor a panic of the kernel without
// a reason. It imports little, because every machine has it in memory.
package boot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/control"
)

// AgentName is the agent's argv[0]. systemd spares processes whose name
// begins with '@' when it kills what is left at its end
// (https://systemd.io/ROOT_STORAGE_DAEMONS/).
const AgentName = "@banger-agent"

// Main is process 1. It returns only when the machine cannot be powered off;
// the caller then ends, upon which the kernel panics and resets.
func Main() {
	m := &machine{console: os.Stderr, events: make(chan event)}
	if err := protect(m.run); err != nil {
		m.fail(err)
	}
	if err := m.powerOff(); err != nil {
		m.say(guest.ErrorPrefix + err.Error())
	}
}

// A machine is what process 1 knows of the one it runs in.
type machine struct {
	console *os.File
	config  *guest.Config
	notes   []string // for guest.Status
	root    string   // what the root file system is, in words
	agent   int      // process, 0 until it is started
	control *os.File // to the agent
	events  chan event
}

// run takes the machine from the initramfs to its end. With the image's own
// init it does not return.
func (m *machine) run() error {
	if err := mountAll(kernelMounts(), false, nil); err != nil {
		return err
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return fmt.Errorf("read kernel command line: %w", err)
	}
	if hasWord(string(line), guest.ProbeWord) {
		m.say(guest.ProbeAnswer)
		return nil
	}
	if m.config, err = readConfig(guest.ConfigPath); err != nil {
		return err
	}
	m.settle()
	if err := loadModules(guest.ModulesDir, m.config.Modules); err != nil {
		return err
	}
	if err := m.startAgent(); err != nil {
		return err
	}
	if err := m.mountRoot(); err != nil {
		return err
	}
	if err := m.prepareRoot(); err != nil {
		return err
	}
	if err := m.tellAgent(); err != nil {
		return err
	}
	if err := switchRoot(); err != nil {
		return err
	}
	m.say(guest.NotePrefix + m.summary())
	if m.config.Init == guest.InitImage {
		return execInit(m.config.InitArgs)
	}
	return m.supervise()
}

// settle gives the kernel what only the host knows: randomness and the time.
// A machine does not fail for want of either.
func (m *machine) settle() {
	if err := addEntropy(m.config.Entropy); err != nil {
		m.note("%v", err)
	}
	if m.config.Time == 0 {
		return
	}
	set, err := setClock(time.Unix(0, m.config.Time))
	if err != nil {
		m.note("%v", err)
	}
	if set {
		m.note("clock set")
	}
}

// summary is what was done, in one line.
func (m *machine) summary() string {
	var uts unix.Utsname
	release := "?"
	if err := unix.Uname(&uts); err == nil {
		release = unix.ByteSliceToString(uts.Release[:])
	}
	s := fmt.Sprintf("kernel %s, root %s, init %s", release, m.root, m.config.Init)
	if m.config.Init == guest.InitImage {
		s += " " + m.config.InitArgs[0]
	}
	s += fmt.Sprintf(", ready after %d ms", uptime().Milliseconds())
	if len(m.notes) > 0 {
		s += "; " + strings.Join(m.notes, "; ")
	}
	return s
}

// note keeps what the user may want to know of the boot and what it could not
// do.
func (m *machine) note(format string, args ...any) {
	m.notes = append(m.notes, oneLine(fmt.Sprintf(format, args...)))
}

// say writes one line to the console. A console that is not there cannot be
// told about.
func (m *machine) say(line string) {
	io.WriteString(m.console, oneLine(line)+"\n") //nolint:errcheck // see above
}

func oneLine(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ") }

// fail says on the console, and to the agent, why the machine ends.
func (m *machine) fail(err error) {
	var p *panicError
	if errors.As(err, &p) {
		m.console.Write(p.stack) //nolint:errcheck // as in say
	}
	m.say(guest.ErrorPrefix + err.Error())
	if m.control != nil {
		control.Send(m.control, control.Message{Fatal: err.Error()}) //nolint:errcheck // the console has it
	}
}

// A panicError is a panic of process 1, which would end the kernel too.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// protect turns a panic of f into an error.
func protect(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &panicError{r, debug.Stack()}
		}
	}()
	return f()
}
