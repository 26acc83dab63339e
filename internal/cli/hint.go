package cli

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/banger-vm/banger/internal/e2fs"
	"github.com/banger-vm/banger/internal/ext4"
	"github.com/banger-vm/banger/internal/fstree"
	"github.com/banger-vm/banger/internal/guestbin"
	"github.com/banger-vm/banger/internal/imagepull"
	"github.com/banger-vm/banger/internal/kernelcat"
	"github.com/banger-vm/banger/internal/rootfs"
	"github.com/banger-vm/banger/internal/store"
	"github.com/banger-vm/banger/internal/vm"
	"github.com/banger-vm/banger/internal/vmm"
)

// hint returns what a user can do about err, or "".
func hint(err error) string {
	if limit, ok := errors.AsType[*fstree.LimitError](err); ok {
		return limitHint(limit.Option)
	}
	if limit, ok := errors.AsType[*imagepull.LimitError](err); ok {
		return limitHint(limit.Option)
	}
	if tool, ok := errors.AsType[*e2fs.MissingToolError](err); ok {
		return "install e2fsprogs (apt install e2fsprogs) for " + tool.Name + ", or use --builder=native"
	}
	if need := neededSize(err); need > 0 {
		return fmt.Sprintf("--size=%dM is enough; without --size the content decides", (need-1)>>20+1)
	}
	if text := kernelHint(err); text != "" {
		return text
	}
	for _, h := range []struct {
		target error
		text   string
	}{
		{imagepull.ErrNotFound, "check the name and the tag; a private repository may need a login (docker login, podman login)"},
		{imagepull.ErrUnauthorized, "log in first, with docker login or podman login"},
		{imagepull.ErrPlainHTTP, "the registry speaks plain http: use --plain-http"},
		{imagepull.ErrNetwork, "check the network, the registry's name and any proxy settings"},
		{rootfs.ErrExists, "--force replaces it"},
		{kernelcat.ErrNotFound, "banger kernel ls shows what there is; banger kernel pull gets more"},
		{kernelcat.ErrNoApt, "this host has no apt: banger kernel import takes packages (deb:FILE), images and loose files"},
		{store.ErrNotFound, "banger image ls shows what there is; banger image pull gets more"},
		{vmm.ErrMissing, "install QEMU: apt install qemu-system-x86 qemu-utils"},
		{vm.ErrNoOverlay, "install it: apt install qemu-utils"},
		{vm.ErrNotFound, "banger ps -a shows what there is"},
		{vm.ErrNotRunning, "banger ps -a shows how it ended; banger start boots it again"},
		{vm.ErrNameTaken, "choose another --name, or remove that machine with banger rm"},
		{guestbin.ErrNotBuilt, "build banger with make build"},
		{syscall.ENOSPC, "free some space: banger image prune removes what is not needed"},
		{syscall.EDQUOT, "free some space: banger image prune removes what is not needed"},
		{os.ErrPermission, "check who owns the file, and where --data-root and $XDG_CACHE_HOME lie"},
	} {
		if errors.Is(err, h.target) {
			return h.text
		}
	}
	if fstree.IsPathRefusal(err) {
		return "--paths=scoped resolves such paths inside the image, as a chroot would"
	}
	return ""
}

// kernelHint is hint for the errors of kernels that have a type.
func kernelHint(err error) string {
	if several, ok := errors.AsType[*kernelcat.SeveralError](err); ok {
		return "choose one with --release, as --release=" + several.Releases[len(several.Releases)-1]
	}
	if _, ok := errors.AsType[*kernelcat.SourceError](err); ok {
		return "banger kernel ls --catalog shows the names; an image is written docker://REF"
	}
	if _, ok := errors.AsType[*kernelcat.AptError](err); ok {
		return "apt-get update may help; banger kernel import takes packages that are files here (deb:FILE)"
	}
	return ""
}

// neededSize returns how many bytes a disk that is too small would need, or 0.
func neededSize(err error) int64 {
	if size, ok := errors.AsType[*ext4.SizeError](err); ok {
		return size.Need
	}
	if size, ok := errors.AsType[*e2fs.SizeError](err); ok {
		return size.Need
	}
	return 0
}

func limitHint(option string) string {
	switch {
	case option == "":
		return ""
	case option[0] == '-':
		return "if the image can be trusted with more, raise " + option
	}
	return "if the image can be trusted with more, raise " + option + " in the configuration file"
}
