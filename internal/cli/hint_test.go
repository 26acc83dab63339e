package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/attach"
	"github.com/banger-vm/banger/internal/image/build"
	"github.com/banger-vm/banger/internal/image/e2fs"
	ext4 "github.com/banger-vm/banger/internal/image/ext4/write"
	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/tree"
)

// TestHints checks the hint of each error, wrapped and joined with another one.
func TestHints(t *testing.T) {
	for _, row := range []struct {
		err  error
		want string
	}{
		{pull.ErrNotFound, "check the name and the tag; a private"},
		{pull.ErrNoImage, "check the name and the tag"},
		{&pull.PathError{Path: "x.tar", Sources: []string{"tar:x.tar", "docker-archive:x.tar"}}, "write tar:x.tar or docker-archive:x.tar"},
		{pull.ErrUnauthorized, "docker login or podman login replaces"},
		{pull.ErrAnonymous, "log in first"},
		{&pull.AddressError{Registry: "r.io", Address: "10.0.0.1"}, `allow-addresses = ["10.0.0.1"] under [registry."r.io"]`},
		{pull.ErrPlainHTTP, "--plain-http"},
		{pull.ErrNetwork, "proxy"},
		{&pull.LimitError{Option: "limits.json"}, "limits.json in the configuration file"},
		{&tree.LimitError{Option: "--max-inodes"}, "raise --max-inodes"},
		{&tree.LimitError{}, ""},
		{tree.ErrDotDot, "--paths=scoped"},
		{tree.ErrAbsoluteName, "--paths=rooted"},
		{&e2fs.MissingToolError{Name: "mkfs.ext4"}, "apt install e2fsprogs"},
		{&ext4.SizeError{Need: 5<<20 + 1}, "--size=6M is enough"},
		{&e2fs.SizeError{Need: 64 << 20}, "--size=64M is enough"},
		{build.ErrExists, "--force"},
		{&os.PathError{Op: "write", Path: "disk", Err: syscall.ENOSPC}, "banger image prune"},
		{&os.PathError{Op: "write", Path: "disk", Err: syscall.EDQUOT}, "banger image prune"},
		{&os.PathError{Op: "open", Path: "disk", Err: syscall.EACCES}, "who owns"},
		{&api.Error{Code: api.CodeNotRunning}, "banger start"},
		{&api.Error{Code: api.CodeNameTaken}, "banger rename"},
		{&api.Error{Code: api.CodeNoKernel}, "banger kernel"},
		{&api.Error{Code: api.CodeNoImage}, "banger image"},
		{&api.Error{Code: api.CodeMissing}, "apt install qemu-system-x86"},
		{&api.Error{Code: api.CodeDriver}, "--disk-driver=auto"},
		{&api.Error{Code: api.CodeNoSpace}, "banger prune"},
		{&api.Error{Code: api.CodeFailed}, ""},
		{&attach.LostError{Machine: "web", Err: api.ErrLost}, "banger attach web"},
		{errors.New("something else"), ""},
	} {
		err := fmt.Errorf("pulling app: %w", errors.Join(row.err, errors.New("close: too")))
		if got := hint(err); !strings.Contains(got, row.want) || (got == "") != (row.want == "") {
			t.Errorf("%v: hint %q, want %q", row.err, got, row.want)
		}
	}
}
