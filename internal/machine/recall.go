package machine

import (
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// A memory is what was read of records, so that a process that lists a
// thousand machines again and again decodes those that have changed alone.
// What is remembered counts only while the file's status is as it was.
type memory struct {
	mu      sync.Mutex
	records map[string]remembered // by the machine's ID
}

type remembered struct {
	rec    *Record
	status status
}

// A status tells a file from the one that takes its place: records are only
// ever replaced.
type status struct {
	inode uint64
	size  int64
	ctime syscall.Timespec
}

// recall is readRecord of a machine's folder, from memory where that counts.
// The record is the caller's, but for its slices and maps.
func (m *memory) recall(dir string) (*Record, error) {
	id := filepath.Base(dir)
	now, ok := statusOf(filepath.Join(dir, recordName))
	m.mu.Lock()
	known := m.records[id]
	m.mu.Unlock()
	if ok && known.rec != nil && known.status == now {
		return new(*known.rec), nil
	}
	rec, err := readRecord(dir)
	// Within a tick of the kernel's clock two files may have one status.
	const tick = time.Second
	if err == nil && ok && time.Since(time.Unix(now.ctime.Unix())) > tick {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.records == nil {
			m.records = map[string]remembered{}
		}
		m.records[id] = remembered{new(*rec), now}
	}
	return rec, err
}

func statusOf(path string) (status, bool) {
	info, err := os.Lstat(path)
	if err != nil {
		return status{}, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return status{}, false
	}
	return status{st.Ino, st.Size, st.Ctim}, true
}

// forget drops what is remembered of machines that are not among ids.
func (m *memory) forget(ids []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.records) <= len(ids) {
		return
	}
	there := make(map[string]bool, len(ids))
	for _, id := range ids {
		there[id] = true
	}
	for id := range m.records {
		if !there[id] {
			delete(m.records, id)
		}
	}
}
