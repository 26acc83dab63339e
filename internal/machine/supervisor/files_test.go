package supervisor

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/machine/bootplan"
	"github.com/banger-vm/banger/internal/machine/control"
	"github.com/banger-vm/banger/internal/machine/record"
)

func hasEnded(f *filesSession) bool {
	select {
	case <-f.ended:
		return true
	default:
		return false
	}
}

// TestFilesSession checks that a session ends a while after its last user, and at
// once if it was released.
func TestFilesSession(t *testing.T) {
	archive := &control.Request{Archive: &api.ArchiveRequest{}}
	synctest.Test(t, func(t *testing.T) {
		f := newFilesSession()
		<-time.After(10 * filesIdle) // the boot is a user
		if err := f.enter(archive); err != nil || hasEnded(f) {
			t.Fatalf("enter while it boots: %v", err)
		}
		f.leave()
		f.leave()
		<-time.After(filesIdle / 2)
		if err := f.enter(&control.Request{HoldFiles: true}); err != nil {
			t.Fatal(err)
		}
		<-time.After(10 * filesIdle)
		if hasEnded(f) {
			t.Fatal("it ended although it has a user")
		}
		f.leave()
		<-time.After(filesIdle + time.Millisecond)
		synctest.Wait()
		if err := f.enter(archive); !hasEnded(f) || !errors.Is(err, record.ErrNotRunning) {
			t.Errorf("it has ended: %v; enter: %v", hasEnded(f), err)
		}

		f = newFilesSession()
		for _, r := range []*control.Request{archive, {ReleaseFiles: true}} {
			if err := f.enter(r); err != nil {
				t.Fatal(err)
			}
		}
		f.leave() // of the boot
		f.leave() // of the release
		if hasEnded(f) {
			t.Error("a release ended it although it has a user")
		}
		if f.leave(); !hasEnded(f) {
			t.Error("it did not end after a release")
		}
	})
}

// TestFilesSessionRefuses checks that a machine that booted for its files does
// not run for any other request, and that no program of the image runs in it.
func TestFilesSessionRefuses(t *testing.T) {
	stop, kill := int64(0), "KILL"
	for name, r := range map[string]*control.Request{
		"stop": {Stop: &stop}, "kill": {Kill: &kill}, "wait": {Wait: true}, "stats": {Stats: true}, "rename": {Rename: "x"},
		"exec": {Exec: &api.ExecRequest{}}, "attach": {Attach: &api.AttachRequest{}}, "nothing": {},
	} {
		if err := newFilesSession().enter(r); !errors.Is(err, record.ErrNotRunning) {
			t.Errorf("%s: %v, want %v", name, err, record.ErrNotRunning)
		}
	}
	p := planFiles(&bootplan.Plan{
		Init: guest.InitImage, InitArgs: []string{"/sbin/init"}, Main: &guest.Command{Args: []string{"x"}}, Volumes: []string{"/data"}, Overlay: true,
	})
	if p.Init != guest.InitBanger || len(p.InitArgs) > 0 || p.Main != nil || len(p.Volumes) > 0 || !p.Overlay {
		t.Errorf("plan %+v", p)
	}
}

// TestHoldOfARunningMachine checks that a machine that runs is not held.
func TestHoldOfARunningMachine(t *testing.T) {
	mine, theirs := connected(t)
	d := &controlServer{v: &supervisor{}}
	d.serveRequest(t.Context(), mine, &control.Request{HoldFiles: true})
	var failure api.Error
	f, err := theirs.Next()
	if err == nil {
		err = f.JSON(&failure)
	}
	if err != nil || f.Kind != frames.Error || failure.Code != api.CodeRunning {
		t.Errorf("frame %v %+v, %v", f.Kind, failure, err)
	}
}
