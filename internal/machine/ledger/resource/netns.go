package resource

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/machine/ledger"
)

// netnsDir is where ip-netns(8) has the network namespaces with a name.
const netnsDir = "/run/netns"

const netnsPrefix = "banger-"

// Netns makes the machine's network namespace and returns the path by which
// setns(2) enters it. Interfaces and tables made in it go with it, and need
// no entries.
func (m Maker) Netns(ctx context.Context) (path string, err error) {
	name := netnsPrefix + string(m.Owner)
	path = filepath.Join(netnsDir, name)
	err = m.make(ctx, ledger.Entry{Kind: ledger.Netns, Name: name, Path: path}, func(e *ledger.Entry) error {
		if err := bindNetns(path); err != nil {
			return err
		}
		id, _, err := fileID(path)
		e.File = id
		return err
	})
	if err != nil {
		return "", err
	}
	return path, nil
}

func bindNetns(path string) error {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	f.Close()
	bound := make(chan error)
	go func() {
		// The thread is never unlocked: it ends with the goroutine, and its
		// namespace lives on in the mount.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			bound <- fmt.Errorf("unshare: %w", err)
			return
		}
		bound <- unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	}()
	return <-bound
}

func removeNetns(e *ledger.Entry) error {
	if e.Name != netnsPrefix+string(e.Owner) || e.Path != filepath.Join(netnsDir, e.Name) {
		return errors.New("name is not one of its owner's")
	}
	id, _, err := fileID(e.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(e.Path, &st); err != nil {
		return err
	}
	mounted := st.Type == unix.NSFS_MAGIC
	if mounted && e.File != (ledger.FileID{}) && e.File != id {
		return nil
	}
	if mounted {
		if err := unix.Unmount(e.Path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return err
		}
	}
	if err := os.Remove(e.Path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func findNetns(want func(ledger.Owner) bool) ([]ledger.Entry, error) {
	entries, err := os.ReadDir(netnsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	boot, err := BootID()
	if err != nil {
		return nil, err
	}
	var out []ledger.Entry
	for _, e := range entries {
		mark, ok := strings.CutPrefix(e.Name(), netnsPrefix)
		owner, valid := ledger.ParseOwner(mark)
		if !ok || !valid || !want(owner) {
			continue
		}
		path := filepath.Join(netnsDir, e.Name())
		id, _, err := fileID(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, ledger.Entry{Kind: ledger.Netns, Name: e.Name(), Owner: owner, Boot: boot, Path: path, File: id})
	}
	return out, nil
}
