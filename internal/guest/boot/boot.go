// Package boot is process 1 of a machine. It runs from the kernel's first step
// in the initramfs until the root file system is in place, and then, unless the
// image's own init takes over, until the machine ends. It owns mounts, modules,
// the network configuration, reaping and powering off. It runs no commands and
// has no connection to the host; its child, the agent, does both. In the
// image's files it writes only the paths that docs/guest.md lists.
//
// If a step fails, boot prints one line on the console and powers the machine
// off. The machine does not hang, and the kernel does not panic without a
// reason on the console. The package has few imports, because every machine
// holds the program in memory.
package boot

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/control"
)

// AgentName is the agent's argv[0]. systemd does not kill processes whose name
// begins with '@' when it shuts down
// (https://systemd.io/ROOT_STORAGE_DAEMONS/).
const AgentName = "@banger-agent"

// Main runs process 1. It returns only if the machine cannot be powered off.
// The caller then exits, and the kernel panics and resets.
func Main() {
	m := &machine{console: os.Stderr, events: make(chan event)}
	if err := protect(m.run); err != nil {
		m.fail(err)
	}
	if err := m.powerOff(); err != nil {
		m.printLine(guest.ErrorPrefix + err.Error())
	}
}

// A machine is the state of process 1.
type machine struct {
	console *os.File
	config  *guest.Config
	notes   []string // for guest.Status
	root    string   // description of the root file system for the console
	agent   int      // process ID, 0 until the agent is started
	control *os.File // connection to the agent
	events  chan event
}

// run boots the machine and returns when the machine may power off. With the
// image's own init it does not return.
func (m *machine) run() error {
	if err := mountAll(kernelMounts(), false, nil); err != nil {
		return err
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return fmt.Errorf("read kernel command line: %w", err)
	}
	if hasWord(string(line), guest.ProbeWord) {
		m.printLine(guest.ProbeAnswer)
		return nil
	}
	if m.config, err = readConfig(guest.ConfigPath); err != nil {
		return err
	}
	m.seedKernel()
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
	if err := m.moveAgent(); err != nil {
		return err
	}
	if err := switchRoot(); err != nil {
		return err
	}
	m.printLine(guest.NotePrefix + m.summary())
	if m.config.Init == guest.InitImage {
		return execInit(m.config.InitArgs)
	}
	return m.serveAsInit()
}

// seedKernel gives the kernel entropy and the time, which only the host has. If
// that fails, it notes the error and the machine boots anyway.
func (m *machine) seedKernel() {
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

// summary describes the boot in one line.
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

// note records a notable or failed step of the boot.
func (m *machine) note(format string, args ...any) {
	m.notes = append(m.notes, oneLine(fmt.Sprintf(format, args...)))
}

// printLine writes one line to the console. It ignores errors, because there is
// no other place to report them.
func (m *machine) printLine(line string) {
	fmt.Fprintln(m.console, oneLine(line))
}

func oneLine(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ") }

// fail reports the error that ends the machine on the console and to the agent.
func (m *machine) fail(err error) {
	var p *panicError
	if errors.As(err, &p) {
		fmt.Fprintf(m.console, "%s", p.stack)
	}
	m.printLine(guest.ErrorPrefix + err.Error())
	if m.control != nil {
		// If the agent has ended too, the console has the error.
		_ = control.Send(m.control, control.Message{Fatal: err.Error()})
	}
}

// A panicError is a panic of process 1. If process 1 ended by it, the kernel
// would panic too.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// protect calls f and returns a panic of f as an error.
func protect(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &panicError{r, debug.Stack()}
		}
	}()
	return f()
}
