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

// A half is a folder directly below internal/. Its packages may import packages of base, of the halves
// that are named here, and of the half itself; the rows of the half say which.
type half struct {
	name    string
	imports string // other halves, and api
	rows    []row
}

// A row lists what one package may import besides base: packages below internal/, and modules.
// A package without a row, and an import without an entry, fails the test.
type row struct{ pkg, internal, modules string }

// halves is the rule of ARCHITECTURE.md: cli -> daemon -> machine -> kernel, vmm, guest -> base, and kernel -> image.
var halves = []half{
	{"cli", "api daemon machine kernel image guest", []row{
		// cli knows guest/bin, kernel and the packages of image by their errors alone, which its hints explain.
		{"cli", "api cli/arg cli/attach cli/connect cli/daemoncmd cli/env cli/exit cli/imagecmd cli/kernelcmd cli/machinecmd cli/render " +
			"guest/bin image/build image/e2fs image/ext4/write image/pull image/store image/tree kernel kernel/source", "spf13/cobra spf13/pflag"},
		{"cli/machinecmd", "api cli/arg cli/attach cli/connect cli/copyrule cli/env cli/exit cli/fetch cli/render " +
			"guest guest/tarcopy kernel machine machine/record machine/repair machine/spec machine/supervisor", "spf13/cobra spf13/pflag"},
		{"cli/imagecmd", "cli/arg cli/env cli/exit cli/fetch cli/render " +
			"image/build image/ext4/read image/pull image/store image/unpack image/verify", "spf13/cobra"},
		{"cli/kernelcmd", "cli/arg cli/env cli/exit cli/fetch cli/render kernel kernel/source", "spf13/cobra"},
		{"cli/daemoncmd", "cli/arg cli/connect cli/env cli/exit cli/render daemon image/store kernel machine", "spf13/cobra"},
		{"cli/attach", "api cli/env cli/exit cli/render", "x/sys x/term"},
		// connect starts the daemon, whose socket lies in the runtime folder of the machines.
		{"cli/connect", "api cli/env daemon machine", ""},
		{"cli/fetch", "cli/arg cli/env cli/exit cli/render image/build image/pull image/store kernel kernel/source", "spf13/cobra"},
		// render shows the events of build, and arg returns its error for a file that exists.
		{"cli/render", "cli/env cli/exit image/build", "docker/go-units vbauerster/mpb x/term"},
		{"cli/arg", "cli/env cli/exit image/build", "spf13/cobra spf13/pflag"},
		{"cli/env", "cli/exit", "docker/go-units pelletier/go-toml x/term"},
		{"cli/exit", "api", ""},
		{"cli/copyrule", "guest/tarcopy", "x/sys"},
	}},
	{"daemon", "api machine kernel image vmm", []row{
		// daemon knows pull by the full names of images alone, vmm by its words for a machine.
		{"daemon", "api machine machine/control machine/record machine/repair machine/spec vmm image/store image/pull kernel", "x/sys"},
	}},
	{"machine", "api kernel image vmm guest", []row{
		// The daemon's side.
		{"machine", "api machine/bootplan machine/control machine/disk machine/ledger machine/ledger/resource machine/logs " +
			"machine/record machine/repair machine/spec image/store vmm vmm/qemu", "x/sys"},
		{"machine/repair", "machine/ledger machine/ledger/resource machine/record machine/spec", ""},
		// The supervisor's side. TestSupervisorSide holds all that it imports against this.
		{"machine/supervisor", "api machine/bootplan machine/control machine/disk machine/ledger machine/logs machine/record machine/spec " +
			"guest guest/bin guest/client guest/initrd guest/link kernel vmm vmm/qemu", "x/sys"},
		// The parts that both share. control knows images and kernels by their errors alone.
		{"machine/control", "api machine/bootplan machine/disk machine/record machine/spec image/store kernel vmm", "x/sys"},
		{"machine/record", "machine/bootplan machine/disk machine/ledger machine/ledger/resource machine/spec guest", "x/sys"},
		{"machine/bootplan", "machine/spec guest image/ext4/read image/store image/tree", ""},
		{"machine/disk", "machine/ledger machine/ledger/resource machine/spec guest vmm", "x/sys"},
		{"machine/logs", "api", ""},
		{"machine/spec", "api vmm", ""},
		{"machine/ledger", "", ""},
		{"machine/ledger/resource", "machine/ledger", "x/sys vishvananda/netlink google/nftables"},
	}},
	{"kernel", "image", []row{
		// machine imports kernel, so kernel imports nothing of the image pipeline.
		{"kernel", "kernel/compression image/ext4/read image/tree", ""},
		{"kernel/source", "kernel kernel/compression image/build image/ext4/read image/tree", "pelletier/go-toml x/sys"},
		{"kernel/compression", "", "klauspost/compress pierrec/lz4 ulikunitz/xz"},
		{"kernel/kerneltest", "", "klauspost/compress pierrec/lz4 ulikunitz/xz"},
	}},
	{"vmm", "", []row{
		{"vmm", "", ""},
		{"vmm/confine", "", "x/sys"},
		{"vmm/qemu", "vmm vmm/confine", "x/sys"},
	}},
	{"guest", "", []row{
		{"guest", "", ""},
		{"guest/control", "guest", "x/sys"},
		{"guest/boot", "guest guest/control", "x/sys"},
		{"guest/link", "", "hashicorp/yamux"},
		{"guest/agent", "guest guest/control guest/link guest/tarcopy", "x/sys x/crypto pkg/sftp"},
		{"guest/client", "guest", "x/crypto"},
		{"guest/tarcopy", "", "x/sys"},
		{"guest/bin", "", ""},
		{"guest/initrd", "guest", "u-root/u-root"},
	}},
	{"image", "", []row{
		{"image/build", "image/pull image/layer image/tree image/ext4/write image/e2fs image/verify image/store",
			"x/sys x/sync docker/go-units google/go-containerregistry"},
		{"image/pull", "image/gunzip", "google/go-containerregistry klauspost/compress x/sys x/sync"},
		{"image/layer", "image/tree image/gunzip", "klauspost/compress"},
		{"image/gunzip", "", ""},
		{"image/tree", "", ""},
		// The reader and the writer of ext4 judge each other: they share the constants of format alone.
		{"image/ext4/format", "", ""},
		{"image/ext4/read", "image/ext4/format image/tree", ""},
		{"image/ext4/check", "image/ext4/format image/ext4/read image/tree", ""},
		{"image/ext4/write", "image/ext4/format image/tree", "x/sys"},
		// Only tests import ext4test.
		{"image/ext4/ext4test", "image/ext4/format image/ext4/read image/ext4/check image/ext4/write image/tree", "x/sys"},
		{"image/e2fs", "image/tree", "x/sys"},
		// verify judges layer, the merge of tree and the writer of ext4: it may share the reader of ext4 with its
		// check and the records of tree alone.
		{"image/verify", "image/tree image/ext4/read image/ext4/check", "klauspost/compress x/sync"},
		{"image/unpack", "image/ext4/read image/tree", "x/sys"},
		{"image/store", "", ""},
	}},
	{"base", "", []row{
		{"base/digest", "", ""},
		{"base/descriptor", "", "x/sys"},
		{"base/atomicfile", "", ""},
		{"base/jsonfile", "base/atomicfile", ""},
		{"base/poll", "", ""},
		{"base/similar", "", ""},
		{"base/flock", "base/poll", "x/sys"},
		{"base/publish", "base/atomicfile base/flock", "x/sys"},
		{"base/named", "base/digest", ""},
		{"base/xdg", "", ""},
		{"base/sparse", "base/digest", "x/sys"},
		{"base/frames", "", ""},
		{"base/unixsocket", "", "x/sys"},
	}},
}

// programs lists what the packages outside internal/ may import of it.
var programs = []row{
	{"api", "base/frames base/unixsocket", ""},
	{"cmd/banger", "cli", ""},
	{"cmd/banger-guest", "guest guest/control guest/boot guest/agent", ""},
}

// goPackage is the part of `go list -json` that the test reads.
type goPackage struct {
	ImportPath string
	Imports    []string
}

// TestHalves holds the rows of the table against the rules between the halves.
func TestHalves(t *testing.T) {
	for _, h := range halves {
		for _, fault := range halfFaults(h) {
			t.Error(fault)
		}
	}
	bad := half{"image", "", []row{{"image/build", "image/tree machine/record", ""}, {"kernel", "", ""}}}
	if got := halfFaults(bad); len(got) != 2 {
		t.Errorf("faults of a half that imports another and has its row = %q, want 2", got)
	}
}

// TestRowsHavePackages finds rows that no package has.
func TestRowsHavePackages(t *testing.T) {
	here := map[string]bool{}
	for _, pkg := range listPackages(t) {
		here[strings.TrimPrefix(strings.TrimPrefix(pkg.ImportPath, module+"/"), "internal/")] = true
	}
	for _, h := range append(halves, half{rows: programs}) {
		for _, r := range h.rows {
			if !here[r.pkg] {
				t.Errorf("%s has a row in the table, and is no package", r.pkg)
			}
		}
	}
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

// TestSupervisorSide checks that a supervisor's process has no code of the daemon's side: it cannot make, list or
// repair machines.
func TestSupervisorSide(t *testing.T) {
	deps := dependencies(t, "./internal/machine/supervisor")
	if !slices.Contains(deps, "internal/machine/record") {
		t.Fatalf("dependencies %q: the test reads the wrong package", deps)
	}
	for _, dep := range deps {
		switch half := halfOf(strings.TrimPrefix(dep, "internal/")); {
		case dep == "internal/machine", dep == "internal/machine/repair", half == "daemon", half == "cli",
			slices.Contains([]string{"internal/image/build", "internal/image/pull", "internal/image/layer", "internal/kernel/source"}, dep):
			t.Errorf("the supervisor's process has %s", dep)
		}
	}
}

// dependencies returns the packages of this module that pkg imports, directly or not.
func dependencies(t *testing.T, pkg string) (deps []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", pkg)
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if dep, ok := strings.CutPrefix(strings.TrimSpace(line), module+"/"); ok {
			deps = append(deps, dep)
		}
	}
	return deps
}

// TestImportArrowsCanFail shows the checker refusing what it must.
func TestImportArrowsCanFail(t *testing.T) {
	for _, row := range []struct {
		name, from, to string
		fault          bool
	}{
		{"an arrow of the table", "internal/image/layer", module + "/internal/image/tree", false},
		{"an arrow turned round", "internal/image/tree", module + "/internal/image/layer", true},
		{"a package of base", "internal/image/tree", module + "/internal/base/digest", false},
		{"a package of base that imports", "internal/base/digest", module + "/internal/image/store", true},
		{"the standard library", "internal/image/store", "net/http", false},
		{"a module where it belongs", "internal/cli", "github.com/spf13/cobra", false},
		{"a module where it does not", "internal/image/store", "github.com/spf13/cobra", true},
		{"the writer that verify judges", "internal/image/verify", module + "/internal/image/ext4/write", true},
		{"the writer in the reader", "internal/image/ext4/read", module + "/internal/image/ext4/write", true},
		{"input and output in the tree", "internal/image/tree", "os", true},
		{"the command line around cli", "cmd/banger", module + "/internal/image/build", true},
		{"the store of kernels and the image pipeline", "internal/kernel", module + "/internal/image/build", true},
		{"a package without a row", "internal/other", "fmt", true},
		{"the client's frames", "api", module + "/internal/base/frames", false},
		{"a client that knows machines", "api", module + "/internal/machine", true},
		{"the wire types", "internal/machine", module + "/api", false},
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

// faults returns a line for each import of pkg that the table does not allow.
func faults(pkg goPackage) []string {
	name := strings.TrimPrefix(pkg.ImportPath, module+"/")
	inner := strings.TrimPrefix(name, "internal/")
	r, ok := findRow(inner)
	if !ok {
		return []string{name + " has no row in the table of arrows"}
	}
	var out []string
	for _, imported := range pkg.Imports {
		if !allowed(r, imported) {
			out = append(out, fmt.Sprintf("%s must not import %s", name, imported))
		}
	}
	return out
}

// findRow returns the row of a package, named by its path below internal/ or below the module.
func findRow(pkg string) (row, bool) {
	is := func(r row) bool { return r.pkg == pkg }
	if i := slices.IndexFunc(programs, is); i >= 0 {
		return programs[i], true
	}
	for _, h := range halves {
		if i := slices.IndexFunc(h.rows, is); i >= 0 {
			return h.rows[i], true
		}
	}
	return row{}, false
}

func allowed(r row, imported string) bool {
	if inner, ok := strings.CutPrefix(imported, module+"/"); ok {
		inner = strings.TrimPrefix(inner, "internal/")
		base := strings.HasPrefix(inner, "base/") && halfOf(r.pkg) != "base" && halfOf(r.pkg) != "api"
		return base || slices.Contains(strings.Fields(r.internal), inner)
	}
	if first, _, _ := strings.Cut(imported, "/"); strings.Contains(first, ".") {
		return slices.ContainsFunc(strings.Fields(r.modules), func(m string) bool {
			path := "github.com/" + m
			if rest, ok := strings.CutPrefix(m, "x/"); ok {
				path = "golang.org/x/" + rest
			}
			return imported == path || strings.HasPrefix(imported, path+"/")
		})
	}
	// The merged tree is metadata: it can reach no file and no network.
	return r.pkg != "image/tree" || !slices.Contains([]string{"os", "net", "net/http", "syscall", "io/ioutil"}, imported)
}

// halfOf returns the first element of a package's path.
func halfOf(pkg string) string {
	first, _, _ := strings.Cut(pkg, "/")
	return first
}

// halfFaults returns a line for each entry of a half's rows that its rule does not allow.
func halfFaults(h half) []string {
	var out []string
	for _, r := range h.rows {
		if halfOf(r.pkg) != h.name {
			out = append(out, fmt.Sprintf("%s stands in the rows of %s", r.pkg, h.name))
		}
		for _, imported := range strings.Fields(r.internal) {
			if other := halfOf(imported); other != h.name && !slices.Contains(strings.Fields(h.imports), other) {
				out = append(out, fmt.Sprintf("%s must not import %s: %s imports nothing of %s", r.pkg, imported, h.name, other))
			}
		}
	}
	return out
}
