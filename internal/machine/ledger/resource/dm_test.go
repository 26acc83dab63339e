package resource

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/machine/ledger"
)

func TestSnapshot(t *testing.T) {
	if err := CheckSnapshots(); err != nil && os.Getenv("BANGER_TEST_DM") != "" {
		t.Fatal(err)
	} else if err != nil {
		t.Skip(err, "; make test-vm runs this inside a machine")
	}
	needRoot(t)
	tm := newTestMachine(t)
	m := tm.maker(t)
	const size = 1 << 20
	origin, err := m.Loop(t.Context(), "image", backing(t, tm.root, "image"), LoopOptions{ReadOnly: true, AutoClear: true})
	if err != nil {
		t.Fatal(err)
	}
	defer origin.Close()
	cow, err := m.Loop(t.Context(), "cow", backing(t, tm.root, "cow"), LoopOptions{AutoClear: true})
	if err != nil {
		t.Fatal(err)
	}
	defer cow.Close()
	path, err := m.Device(t.Context(), "root", DeviceOptions{}, SnapshotTarget(origin.Name(), cow.Name(), size/SectorSize))
	if err != nil {
		t.Fatal(err)
	}
	content := bytes.Repeat([]byte("banger!\n"), 512)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_SYNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(content, 4096)
	got := make([]byte, len(content))
	if _, readErr := f.ReadAt(got, 4096); err != nil || readErr != nil || !bytes.Equal(got, content) {
		t.Errorf("snapshot: %v, %v", err, readErr)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(tm.root + "/image"); err != nil || bytes.Contains(data, content[:8]) {
		t.Errorf("the image was written: %v", err)
	}
	e := m.Ledger.Entries()[2]
	foreign := e
	foreign.UUID = strings.Replace(e.UUID, tm.owner.Tag(), "ffffffff", 1)
	foreign.Owner = ledger.Owner(tm.id + "-ffffffff")
	checkSpared(t, foreign, func() string { return run(t, "dmsetup", "info", e.Name) })
	// The kernel refuses a second device with a target that does not exist.
	if _, err := (Maker{m.Ledger, foreign.Owner}).Device(t.Context(), "other", DeviceOptions{}, Target{Length: 8, Type: "none"}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a target that does not exist: %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := m.Ledger.Teardown(short, Remove); !errors.Is(err, context.DeadlineExceeded) {
		t.Error("loop devices that are open in this process were removed")
	}
	origin.Close()
	cow.Close()
	if err := m.Ledger.Teardown(t.Context(), Remove); err != nil || len(m.Ledger.Entries()) > 0 {
		t.Errorf("teardown: %v, entries %v", err, m.Ledger.Entries())
	}
}
