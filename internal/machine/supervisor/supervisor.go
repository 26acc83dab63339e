package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/descriptor"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/machine/control"
	"github.com/banger-vm/banger/internal/machine/logs"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/vmm"
)

// Config describes the host to a supervisor.
type Config struct {
	Root    *record.Root
	Kernels *kernel.Store // has the kernel of the machine
	Cache   string        // folder for the initramfs and for the results of probes of the host
	// QEMUFolders and Unconfined are fields of qemu.Monitor.
	QEMUFolders []string
	Unconfined  bool
}

// A supervisor owns one machine, from its start to its end, and over its
// restarts.
type supervisor struct {
	Config
	launch  control.Launch
	journal *record.Journal
	fanOut  *fanOut
	output  *logs.File
	loop    *loop
	files   *filesSession // nil unless the machine boots only for its files
}

// Run is the work of a supervisor's process: it takes over the machine id from
// the process that started it, boots the machine, runs its main command,
// serves requests, and gives all resources back at the end. When ctx ends,
// Run stops the machine.
//
// Run owns the process: it closes all files that the process has inherited, except
// those of the process that started it.
func Run(ctx context.Context, id string, c Config) error {
	if err := descriptor.CloseInherited(control.StartFD, control.LockFD); err != nil {
		return fmt.Errorf("supervise machine %s: %w", id, err)
	}
	start, dir, err := inherit(c.Root, id)
	if err != nil {
		return fmt.Errorf("supervise machine %s: %w", id, err)
	}
	conn := frames.New(start)
	var launch control.Launch
	frame, err := conn.Next()
	if err == nil {
		err = frame.JSON(&launch)
	}
	j, journalErr := record.OpenJournal(ctx, dir)
	if journalErr != nil {
		return errors.Join(fmt.Errorf("supervise machine %s: %w", id, journalErr), conn.SendJSON(frames.Error, control.WireError(journalErr)))
	}
	if err != nil { // the process that started this one is gone
		return j.Abandon(context.WithoutCancel(ctx), j.Record().State == record.StateCreating)
	}
	v := &supervisor{Config: c, launch: launch, journal: j, fanOut: newFanOut(), loop: newLoop()}
	if launch.Files {
		v.files = newFilesSession()
	}
	first := &subscriber{conn: conn, raw: start, events: true, output: launch.Attach, console: launch.Console}
	if err := v.run(ctx, first); err != nil {
		return fmt.Errorf("supervise machine %s: %w", id, err)
	}
	return nil
}

// inherit takes over the descriptors that the process that started this one
// has passed on.
func inherit(root *record.Root, id string) (net.Conn, *record.Folder, error) {
	file, lock := os.NewFile(control.StartFD, "start"), os.NewFile(control.LockFD, root.DataDir(id))
	dir, err := root.Inherit(id, lock)
	if err != nil {
		return nil, nil, err
	}
	start, err := net.FileConn(file)
	if err != nil {
		return nil, nil, err
	}
	return start, dir, file.Close()
}

// run serves first, the connection that the machine was started on, and other
// clients, until the machine has ended for good.
func (v *supervisor) run(ctx context.Context, first *subscriber) (err error) {
	own := context.WithoutCancel(ctx)
	v.fanOut.join(first)
	server, err := v.listen(own)
	if err != nil {
		err = errors.Join(err, v.journal.Abandon(own, v.launch.First))
		v.reportFailure(err)
		return err
	}
	v.output, err = logs.Open(filepath.Join(v.journal.Dir.Data, logs.Command), logs.CommandSize)
	if err != nil {
		err = errors.Join(err, v.journal.Abandon(own, v.launch.First), server.close())
		v.reportFailure(err)
		return err
	}
	v.loop.input = v.newInput()
	server.clients.Go(func() { server.serveSubscriber(first, v.launch.Attach) })
	unhook := context.AfterFunc(ctx, func() { v.requestStop(stoppedByHost, control.StopGrace) })
	defer unhook()
	err = v.runLoop(own)
	v.dismissAll()
	return errors.Join(err, v.output.Close(), server.close())
}

// dismissAll sends all subscribers the exit of the machine and closes their
// connections.
func (v *supervisor) dismissAll() {
	exit := v.loop.lastExit()
	all := func(*subscriber) bool { return true }
	v.fanOut.send(frames.Exit, exit, all)
	v.fanOut.dismiss(all)
}

// reportFailure sends the client that started the machine the reason why it
// did not come up.
func (v *supervisor) reportFailure(err error) {
	starter := func(s *subscriber) bool { return s.events }
	v.fanOut.send(frames.Error, control.WireError(err), starter)
	v.fanOut.dismiss(starter)
}

// phase reports a step of the boot to the client that started the machine.
func (v *supervisor) phase(done string) {
	v.fanOut.send(frames.Event, api.Event{Phase: done}, func(s *subscriber) bool { return s.events })
}

// notice sends a remark for the user.
func (v *supervisor) notice(text string) {
	v.fanOut.send(frames.Event, api.Event{Notice: text}, func(s *subscriber) bool { return s.events })
}

// noticeAll sends a remark to the users who wait for the machine to boot, or see its
// output.
func (v *supervisor) noticeAll(text string) {
	v.fanOut.send(frames.Event, api.Event{Notice: text}, func(s *subscriber) bool { return s.events || s.output || s.console })
}

// reportReady reports that the machine runs, and its main command if it has
// one, and lets the clients go that only waited for it.
func (v *supervisor) reportReady() {
	v.fanOut.send(frames.Event, api.Event{Ready: true}, func(s *subscriber) bool { return s.events })
	v.fanOut.dismiss(func(s *subscriber) bool { return s.events && !s.output && !s.console })
}

// newInput returns the main command's standard input, or nil if it has none.
func (v *supervisor) newInput() *input {
	if !v.journal.Record().Config.Stdin {
		return nil
	}
	r, w := io.Pipe()
	return &input{r, w}
}

// accel returns the accelerator of the start or of the machine's Config; ""
// lets the supervisor choose.
func (v *supervisor) accel(rec *record.Record) vmm.Accel {
	if v.launch.Accel != "" {
		return v.launch.Accel
	}
	return rec.Config.Accel
}
