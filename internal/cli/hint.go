package cli

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/attach"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/guest/bin"
	"github.com/banger-vm/banger/internal/image/build"
	"github.com/banger-vm/banger/internal/image/e2fs"
	ext4 "github.com/banger-vm/banger/internal/image/ext4/write"
	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/image/tree"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/kernel/source"
)

// hint returns advice for a user who gets err, or "".
func hint(err error) string {
	if _, ok := errors.AsType[*env.OutputError](err); ok {
		return "" // banger image prune frees no space there
	}
	if limit, ok := errors.AsType[*tree.LimitError](err); ok {
		return limitHint(limit.Option)
	}
	if limit, ok := errors.AsType[*pull.LimitError](err); ok {
		return limitHint(limit.Option)
	}
	if path, ok := errors.AsType[*pull.PathError](err); ok {
		return path.Hint()
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
	if lost, ok := errors.AsType[*attach.LostError](err); ok {
		return "the machine goes on: banger attach " + lost.Machine + " comes back"
	}
	if e, ok := errors.AsType[*pull.AddressError](err); ok {
		return fmt.Sprintf("if that is right: allow-addresses = [%q] under [registry.%q] in the configuration file", e.Address, e.Registry)
	}
	if wire, ok := errors.AsType[*api.Error](err); ok {
		return daemonHint(wire.Code)
	}
	for _, h := range []struct {
		target error
		text   string
	}{
		{pull.ErrNoImage, "check the name and the tag"},
		{pull.ErrNotFound, "check the name and the tag; a private repository may need a login (docker login, podman login)"},
		{pull.ErrAnonymous, "log in first, with docker login or podman login"},
		{pull.ErrUnauthorized, "the stored credentials do not permit it: docker login or podman login replaces them"},
		{pull.ErrPlainHTTP, "the registry speaks plain http: use --plain-http"},
		{pull.ErrNetwork, "check the network, the registry's name and any proxy settings"},
		{build.ErrExists, "--force replaces it"},
		{kernel.ErrNotFound, "banger kernel ls shows what there is; banger kernel pull gets more"},
		{source.ErrNoApt, "this host has no apt: banger kernel import takes packages (deb:FILE), images and loose files"},
		{store.ErrNotFound, "banger image ls shows what there is; banger image pull gets more"},
		{bin.ErrNotBuilt, "build banger with make build"},
		{syscall.ENOSPC, "free some space: banger image prune removes what is not needed"},
		{syscall.EDQUOT, "free some space: banger image prune removes what is not needed"},
		{os.ErrPermission, "check who owns the file, and where --data-root and $XDG_CACHE_HOME lie"},
	} {
		if errors.Is(err, h.target) {
			return h.text
		}
	}
	if errors.Is(err, tree.ErrAbsoluteName) {
		return "--paths=rooted, the default, reads such names from the image's root"
	}
	if tree.IsPathRefusal(err) {
		return "--paths=scoped resolves such paths inside the image, as a chroot would"
	}
	return ""
}

// daemonHint returns the hint for an error of the daemon.
func daemonHint(code api.ErrorCode) string {
	switch code {
	case api.CodeNotFound:
		return "banger ps -a shows what there is"
	case api.CodeNoImage:
		return "banger image ls shows what there is; banger image pull gets more"
	case api.CodeNoKernel:
		return "banger kernel ls shows what there is; banger kernel pull gets more"
	case api.CodeNameTaken:
		return "choose another name, or make this one free with banger rm or banger rename"
	case api.CodeRunning:
		return "end it first with banger stop; banger rm --force kills it"
	case api.CodeNotRunning:
		return "banger ps -a shows how it ended; banger start boots it again"
	case api.CodeBusy:
		return "another command works on it: try again when that is done"
	case api.CodeTooMany:
		return "banger ps shows what runs; banger prune removes what does not"
	case api.CodeMissing:
		return "install it: apt install qemu-system-x86 qemu-utils (banger daemon stop, if the daemon has another PATH than you)"
	case api.CodeDriver:
		return "--disk-driver=auto takes one that works; banger doctor shows which do"
	case api.CodeNoSpace:
		return "free some space: banger prune and banger image prune remove what is not needed"
	case api.CodeEnding:
		return "the next command starts another daemon: try again"
	case api.CodeInvalid, api.CodeNoCommand, api.CodeNotBootable, api.CodeVersion, api.CodeFailed, api.CodeInternal:
	}
	return ""
}

// kernelHint returns the hint for the errors of package kernel that have a type.
func kernelHint(err error) string {
	if several, ok := errors.AsType[*source.SeveralError](err); ok {
		return "choose one with --release, as --release=" + several.Releases[len(several.Releases)-1]
	}
	if _, ok := errors.AsType[*source.SourceError](err); ok {
		return "banger kernel ls --catalog shows the names; an image is written docker://REF"
	}
	if _, ok := errors.AsType[*source.AptError](err); ok {
		return "apt-get update may help; banger kernel import takes packages that are files here (deb:FILE)"
	}
	return ""
}

// neededSize returns the bytes that a disk needs if err reports that it is too
// small, and 0 otherwise.
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
