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

// A step is a moment in the life of a machine's record or ledger: just before a new version of a file is written,
// or just after one was published, when its folder is opened to be made durable, or to be locked. Between two
// steps a process has at most done what it had noted.
type step struct {
	machine string // ID
	what    string
	pid     int // who takes it, and waits
}

// A watcher sees every step in a world, and holds whoever takes it until it has been looked at: fanotify(7) asks
// before a file is opened.
type watcher struct {
	fan  *os.File
	done chan struct{}

	mu   sync.Mutex
	seen func(step) // nil: nobody looks
	err  error
}

// stepForm is the path of what is opened at a step.
var stepForm = regexp.MustCompile(`/data/banger/machines/([0-9a-f]{12})(?:/\.((?:record|handles)\.json)\.tmp-[^/]*)?$`)

// watch makes the world a mount of its own and watches it until the test ends.
func (w world) watch(t *testing.T) *watcher {
	t.Helper()
	if err := unix.Mount(w.dir, w.dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.killAll()
		// While the mount is there, the devices are known by their files.
		if err := errors.Join(detachLoops(w.dir), unix.Unmount(w.dir, unix.MNT_DETACH)); err != nil {
			t.Error(err)
		}
	})
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_UNLIMITED_QUEUE, unix.O_RDONLY|unix.O_LARGEFILE|unix.O_CLOEXEC)
	if err != nil {
		t.Fatalf("watch files: %v", err)
	}
	watcher := &watcher{fan: os.NewFile(uintptr(fd), "fanotify"), done: make(chan struct{})}
	const opens = unix.FAN_OPEN_PERM | unix.FAN_ONDIR
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_MOUNT, opens, unix.AT_FDCWD, w.dir); err != nil {
		t.Fatalf("watch files of %s: %v", w.dir, err)
	}
	go watcher.serve()
	t.Cleanup(func() {
		// Without the mark nothing comes any more, and the last one lets the reader see the end.
		if err := unix.FanotifyMark(fd, unix.FAN_MARK_FLUSH|unix.FAN_MARK_MOUNT, 0, unix.AT_FDCWD, w.dir); err != nil {
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

// look has each step shown to seen until it is called again. What seen does must not open a file of the world.
func (w *watcher) look(seen func(step)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = seen
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
			w.fan.Close() // which lets everybody go
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
		w.show(int(fd), int(pid))
	}
	answer := binary.NativeEndian.AppendUint32(nil, uint32(fd))
	answer = binary.NativeEndian.AppendUint32(answer, unix.FAN_ALLOW)
	_, err := w.fan.Write(answer)
	if errors.Is(err, unix.ENOENT) {
		return nil // who asked was killed meanwhile
	}
	return err
}

func (w *watcher) show(fd, pid int) {
	path, err := os.Readlink(filepath.Join("/proc/self/fd", strconv.Itoa(fd)))
	if err != nil {
		return
	}
	found := stepForm.FindStringSubmatch(path)
	w.mu.Lock()
	seen := w.seen
	w.mu.Unlock()
	if found == nil || seen == nil {
		return
	}
	what := "folder opened"
	if found[2] != "" {
		what = "before " + found[2]
	}
	seen(step{found[1], what, pid})
}
