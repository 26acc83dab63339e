//go:build e2e

package crash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A step is a point in the life of a machine's record or ledger: just before a new version of a file is written, or
// just after one was published, when a process opens its folder to sync or to lock it. Between two steps a process does
// only work that it has recorded before.
type step struct {
	machine string // ID
	what    string
	pid     int // the process at the step, which waits
}

// A watcher reports every step in a sandbox, and holds the process at the step until its handler returns: fanotify(7)
// asks for permission before a file is opened.
type watcher struct {
	fan  *os.File
	done chan struct{}

	mu      sync.Mutex
	handler func(step) // nil for none
	err     error
}

// stepForm matches the path that is opened at a step.
var stepForm = regexp.MustCompile(`/data/banger/machines/([0-9a-f]{12})(?:/\.((?:record|handles)\.json)\.tmp-[^/]*)?$`)

// watch mounts the sandbox on itself and watches the mount until the test ends.
func (box sandbox) watch(t *testing.T) *watcher {
	t.Helper()
	if err := unix.Mount(box.dir, box.dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		box.killAll()
		// After the unmount the paths of the devices' files cannot be recognized.
		if err := errors.Join(detachLoops(box.dir), unix.Unmount(box.dir, unix.MNT_DETACH)); err != nil {
			t.Error(err)
		}
	})
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_UNLIMITED_QUEUE, unix.O_RDONLY|unix.O_LARGEFILE|unix.O_CLOEXEC)
	if err != nil {
		t.Fatalf("watch files: %v", err)
	}
	watcher := &watcher{fan: os.NewFile(uintptr(fd), "fanotify"), done: make(chan struct{})}
	const opens = unix.FAN_OPEN_PERM | unix.FAN_ONDIR
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_MOUNT, opens, unix.AT_FDCWD, box.dir); err != nil {
		t.Fatalf("watch files of %s: %v", box.dir, err)
	}
	go watcher.serve()
	t.Cleanup(func() {
		// Without the mark no further event comes.
		if err := unix.FanotifyMark(fd, unix.FAN_MARK_FLUSH|unix.FAN_MARK_MOUNT, 0, unix.AT_FDCWD, box.dir); err != nil {
			t.Error(err)
		}
		watcher.mu.Lock()
		defer watcher.mu.Unlock()
		if watcher.err != nil {
			t.Error(watcher.err)
		}
	})
	return watcher
}

// onStep calls handler for each step from now on; nil ends that. handler must not open a file of the sandbox.
func (w *watcher) onStep(handler func(step)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handler = handler
}

func (w *watcher) serve() {
	defer close(w.done)
	buf := make([]byte, 64<<10)
	for {
		n, err := w.fan.Read(buf)
		for err == nil && n >= unix.FAN_EVENT_METADATA_LEN {
			size := int(binary.NativeEndian.Uint32(buf))
			err = w.handle(buf[:size])
			n = copy(buf, buf[size:n])
		}
		if err != nil {
			w.mu.Lock()
			w.err = fmt.Errorf("watch files: %w", err)
			w.mu.Unlock()
			w.fan.Close() // the kernel then permits all opens that wait
			return
		}
	}
}

// handle answers one event: struct fanotify_event_metadata of linux/fanotify.h.
func (w *watcher) handle(event []byte) error {
	const fdAt, pidAt = 16, 20
	fd, pid := int32(binary.NativeEndian.Uint32(event[fdAt:])), int32(binary.NativeEndian.Uint32(event[pidAt:]))
	if fd < 0 {
		return errors.New("event without a file: the queue is full")
	}
	defer unix.Close(int(fd))
	if int(pid) != os.Getpid() {
		w.report(int(fd), int(pid))
	}
	answer := binary.NativeEndian.AppendUint32(nil, uint32(fd))
	answer = binary.NativeEndian.AppendUint32(answer, unix.FAN_ALLOW)
	_, err := w.fan.Write(answer)
	if errors.Is(err, unix.ENOENT) {
		return nil // the process that waited was killed meanwhile
	}
	return err
}

func (w *watcher) report(fd, pid int) {
	path, err := os.Readlink(filepath.Join("/proc/self/fd", strconv.Itoa(fd)))
	if err != nil {
		return
	}
	found := stepForm.FindStringSubmatch(path)
	w.mu.Lock()
	handler := w.handler
	w.mu.Unlock()
	if found == nil || handler == nil {
		return
	}
	what := "folder opened"
	if found[2] != "" {
		what = "before " + found[2]
	}
	handler(step{found[1], what, pid})
}
