package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/tarcopy"
)

// maxArchivePath is the limit of a path in bytes. It is above the kernel's own.
const maxArchivePath = 8 << 10

// archiveLaunch prepares a process that copies files, as root.
func archiveLaunch(c guest.Archive, program string) (*launch, error) {
	switch c.Op {
	case guest.ArchiveStat, guest.ArchiveGet, guest.ArchivePut:
	default:
		return nil, fmt.Errorf("copy files: no operation is named %q", c.Op)
	}
	if c.Path == "" || len(c.Path) > maxArchivePath || strings.ContainsRune(c.Path, 0) {
		return nil, errors.New("copy files: the path is not valid")
	}
	request, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("copy files: %w", err)
	}
	return &launch{
		path: program, argv: []string{filepath.Base(program), "archive", string(request)},
		dir: "/", account: &account{name: "root", home: "/"}, stdin: true,
	}, nil
}

// Archive carries out request, a guest.Archive as JSON, on standard input and
// output. The process must be in the machine's root already.
func Archive(request string) error {
	var c guest.Archive
	if err := json.Unmarshal([]byte(request), &c); err != nil {
		return fmt.Errorf("copy files: read request: %w", err)
	}
	// If the client closes the channel, the process gets SIGHUP. It must not
	// leave a partial file then.
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGHUP, unix.SIGTERM)
	defer stop()
	return copyFiles(ctx, c, os.Stdin, os.Stdout, func(text string) { fmt.Fprintln(os.Stderr, text) })
}

func copyFiles(ctx context.Context, c guest.Archive, in io.Reader, out io.Writer, note func(string)) error {
	path := c.Path
	if !filepath.IsAbs(path) {
		path = "/" + path
	}
	switch c.Op {
	case guest.ArchiveStat:
		found, err := tarcopy.Lookup(path)
		if err != nil {
			return err
		}
		found.Sparse = true
		return json.NewEncoder(out).Encode(found)
	case guest.ArchiveGet:
		return tarcopy.Pack(ctx, out, path, tarcopy.PackOptions{Follow: c.FollowLink, Sparse: c.Sparse, Note: note})
	case guest.ArchivePut:
		opts := tarcopy.ExtractOptions{Owners: true, Trusted: true, Note: note}
		if !c.KeepOwners {
			opts.Owner = &tarcopy.Owner{}
		}
		_, err := tarcopy.Extract(ctx, in, path, opts)
		if c.Sync {
			unix.Sync()
		}
		return err
	}
	return fmt.Errorf("copy files: no operation is named %q", c.Op)
}
