package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/banger-vm/banger"

// leaves may be imported by any package, and import none that is not in their row.
var leaves = strings.Fields("digest atomicfile jsonfile paths sparse stream socket")

// arrows are those of ARCHITECTURE.md: what a package of internal/ may import besides the leaves, and
// which modules of others. A package without a row, and an import without an entry, fails the test.
var arrows = []struct{ pkg, internal, modules string }{
	// cli knows fstree, e2fs and imagepull by their errors alone, which its hints explain.
	{"cli", "api daemon archive transfer rootfs verify unpack store imagepull fstree ext4 e2fs kernelcat vm vmm guest guest/client guestbin",
		"spf13/cobra spf13/pflag vbauerster/mpb x/term x/sys pelletier/go-toml docker/go-units"},
	{"api", "", ""},
	// daemon knows imagepull by the full names of images alone, vmm by its words for a machine.
	{"daemon", "api vm vmm store kernelcat imagepull", "x/sys"},
	{"rootfs", "imagepull layer fstree ext4 e2fs verify store", "x/sys x/sync docker/go-units google/go-containerregistry"},
	{"imagepull", "", "google/go-containerregistry klauspost/compress x/sys x/sync"},
	{"layer", "fstree gunzip", "klauspost/compress"},
	{"gunzip", "", ""},
	{"fstree", "", ""},
	{"ext4", "fstree", "x/sys"},
	{"e2fs", "fstree", "x/sys"},
	// verify judges what layer, fstree's merge and ext4's writer made: it may share ext4's reader and
	// fstree's records alone.
	{"verify", "fstree ext4", "klauspost/compress x/sync"},
	{"kernelcat", "rootfs ext4 fstree store", "klauspost/compress pierrec/lz4 ulikunitz/xz pelletier/go-toml x/sys"},
	{"unpack", "ext4 fstree", "x/sys"},
	{"archive", "", "x/sys"},
	{"transfer", "archive", "x/sys"},
	{"store", "", "x/sys"},
	{"guest", "", ""},
	{"guest/control", "guest", "x/sys"},
	{"guest/boot", "guest guest/control", "x/sys"},
	{"guest/link", "", "hashicorp/yamux"},
	{"guest/agent", "archive guest guest/control guest/link", "x/sys x/crypto pkg/sftp"},
	{"guest/client", "guest guest/link", "x/crypto pkg/sftp"},
	{"guestbin", "", ""},
	{"initrd", "guest guestbin", "u-root/u-root"},
	{"vmm", "", ""},
	{"vmm/qemu", "vmm", "x/sys"},
	{"vm", "api vmm vmm/qemu guest guest/client guest/link guestbin initrd kernelcat ext4 fstree store ledger ledger/resource", "x/sys"},
	{"ledger", "", ""},
	{"ledger/resource", "ledger", "x/sys vishvananda/netlink google/nftables"},
	{"netstack", "", "x/sys containers/gvisor-tap-vsock vishvananda/netlink google/nftables"},
	{"digest", "", ""},
	{"atomicfile", "", "x/sys"},
	{"jsonfile", "atomicfile", ""},
	{"paths", "", ""},
	{"sparse", "digest", "x/sys"},
	{"stream", "", ""},
	{"socket", "", "x/sys"},
}

// goPackage is the part of `go list -json` that the test reads.
type goPackage struct {
	ImportPath string
	Imports    []string
}

func TestImportArrows(t *testing.T) {
	packages := listPackages(t)
	if len(packages) < 3 {
		t.Fatalf("go list names %d packages: the test reads the wrong folder", len(packages))
	}
	for _, pkg := range packages {
		for _, fault := range faults(pkg) {
			t.Error(fault)
		}
	}
}

// TestImportArrowsCanFail shows the checker refusing what it must.
func TestImportArrowsCanFail(t *testing.T) {
	for _, row := range []struct {
		name, from, to string
		fault          bool
	}{
		{"an arrow of the table", "internal/layer", module + "/internal/fstree", false},
		{"an arrow turned round", "internal/fstree", module + "/internal/layer", true},
		{"a leaf", "internal/fstree", module + "/internal/digest", false},
		{"a leaf that imports", "internal/digest", module + "/internal/store", true},
		{"the standard library", "internal/store", "net/http", false},
		{"a module where it belongs", "internal/cli", "github.com/spf13/cobra", false},
		{"a module where it does not", "internal/store", "github.com/spf13/cobra", true},
		{"input and output in the tree", "internal/fstree", "os", true},
		{"the command line around cli", "cmd/banger", module + "/internal/rootfs", true},
		{"a package without a row", "internal/other", "fmt", true},
		{"the client's frames", "api", module + "/internal/stream", false},
		{"a client that knows machines", "api", module + "/internal/vm", true},
		{"the wire types", "internal/vm", module + "/api", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := faults(goPackage{ImportPath: module + "/" + row.from, Imports: []string{row.to}})
			if (len(got) > 0) != row.fault {
				t.Errorf("faults = %q, want some: %v", got, row.fault)
			}
		})
	}
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./api/...", "./cmd/...", "./internal/...")
	cmd.Dir = root
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var packages []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var pkg goPackage
		switch err := dec.Decode(&pkg); {
		case errors.Is(err, io.EOF):
			return packages
		case err != nil:
			t.Fatalf("decode go list: %v", err)
		}
		packages = append(packages, pkg)
	}
}

// faults are the imports of pkg that the table does not have.
func faults(pkg goPackage) []string {
	name := strings.TrimPrefix(pkg.ImportPath, module+"/")
	internal, modules := []string{"cli"}, []string(nil)
	if name == "cmd/banger-guest" { // the program inside a machine
		internal = []string{"guest", "guest/control", "guest/boot", "guest/agent"}
	}
	if inner, ok := strings.CutPrefix(name, "internal/"); ok || name == "api" {
		row := slices.IndexFunc(arrows, func(a struct{ pkg, internal, modules string }) bool { return a.pkg == inner })
		if row < 0 {
			return []string{name + " has no row in the table of arrows"}
		}
		internal, modules = strings.Fields(arrows[row].internal), strings.Fields(arrows[row].modules)
		if !slices.Contains(leaves, inner) {
			internal = append(internal, leaves...)
		}
	}
	var out []string
	for _, imported := range pkg.Imports {
		if !allowed(name, imported, internal, modules) {
			out = append(out, fmt.Sprintf("%s must not import %s", name, imported))
		}
	}
	return out
}

func allowed(name, imported string, internal, modules []string) bool {
	if inner, ok := strings.CutPrefix(imported, module+"/"); ok {
		return slices.Contains(internal, strings.TrimPrefix(inner, "internal/"))
	}
	if first, _, _ := strings.Cut(imported, "/"); strings.Contains(first, ".") {
		return slices.ContainsFunc(modules, func(m string) bool {
			path := "github.com/" + m
			if rest, ok := strings.CutPrefix(m, "x/"); ok {
				path = "golang.org/x/" + rest
			}
			return imported == path || strings.HasPrefix(imported, path+"/")
		})
	}
	// The merged tree is metadata: it can reach no file and no network.
	return name != "internal/fstree" || !slices.Contains([]string{"os", "net", "net/http", "syscall", "io/ioutil"}, imported)
}
