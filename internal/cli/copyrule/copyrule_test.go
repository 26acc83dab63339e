package copyrule

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/guest/tarcopy"
)

func TestParse(t *testing.T) {
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		text string
		want Operand
		err  bool
	}{
		{text: "-", want: Operand{Stream: true}},
		{text: "file", want: Operand{Path: "file"}},
		{text: ".", want: Operand{Path: "."}},
		{text: "dir/", want: Operand{Path: "dir/"}},
		{text: "dir/.", want: Operand{Path: "dir/."}},
		{text: "..", want: Operand{Path: filepath.Dir(cwd)}},
		{text: "a/../..", want: Operand{Path: filepath.Dir(cwd)}},
		{text: "../", want: Operand{Path: filepath.Dir(cwd) + "/"}},
		{text: "..//.", want: Operand{Path: filepath.Dir(cwd) + "/."}},
		{text: "/..", want: Operand{Path: "/"}},
		{text: "/a:b", want: Operand{Path: "/a:b"}},
		{text: "./a:b", want: Operand{Path: "./a:b"}},
		{text: "m:/etc", want: Operand{Machine: "m", Path: "/etc"}},
		{text: "m:etc", want: Operand{Machine: "m", Path: "/etc"}},
		{text: "m:/etc/", want: Operand{Machine: "m", Path: "/etc/"}},
		{text: "m:etc/.", want: Operand{Machine: "m", Path: "/etc/."}},
		{text: "m:.", want: Operand{Machine: "m", Path: "/"}},
		{text: "m:/", want: Operand{Machine: "m", Path: "/"}},
		{text: "m:/a/../../b", want: Operand{Machine: "m", Path: "/b"}},
		{text: "m:a:b", want: Operand{Machine: "m", Path: "/a:b"}},
		{text: "m:-", want: Operand{Machine: "m", Path: "/-"}},
		{text: "", err: true},
		{text: ":", err: true},
		{text: ":/etc", err: true},
		{text: "m:", err: true},
	} {
		got, err := Parse(row.text)
		if got != row.want || (err != nil) != row.err {
			t.Errorf("%q: got %+v, %v, want %+v", row.text, got, err, row.want)
		}
	}
}

// TestNewPlan checks the rules of
// https://docs.docker.com/reference/cli/docker/container/cp/.
func TestNewPlan(t *testing.T) {
	file := func(path string) Source { return Source{Path: path} }
	dir := func(path string) Source { return Source{Path: path, Dir: true} }
	none := func(path string) Target { return Target{Path: path} }
	isFile := func(path string) Target { return Target{Path: path, Exists: true} }
	isDir := func(path string) Target { return Target{Path: path, Exists: true, Dir: true} }
	for _, row := range []struct {
		name string
		src  Source
		dst  Target
		want Plan
		err  error
	}{
		{"file to new name", file("/a/f"), none("/b/g"), Plan{"/b", "f", "g"}, nil},
		{"file to new name that ends in a slash", file("/a/f"), none("/b/g/"), Plan{}, ErrNoFolder},
		{"file to new name that ends in a dot", file("/a/f"), none("/b/g/."), Plan{}, ErrNoFolder},
		{"file to file", file("/a/f"), isFile("/b/g"), Plan{"/b", "f", "g"}, nil},
		{"file to file that ends in a slash", file("/a/f"), isFile("/b/g/"), Plan{}, ErrNotFolder},
		{"file to folder", file("/a/f"), isDir("/b"), Plan{"/b", "f", "f"}, nil},
		{"file to folder that ends in a slash", file("/a/f"), isDir("/b/"), Plan{"/b/", "f", "f"}, nil},
		{"file to device", file("/a/f"), Target{Path: "/dev/null", Exists: true, Special: true}, Plan{}, ErrSpecial},
		{"folder to new name", dir("/a/d"), none("/b/e"), Plan{"/b", "d", "e"}, nil},
		{"folder to new name that ends in a slash", dir("/a/d"), none("/b/e/"), Plan{"/b", "d", "e"}, nil},
		{"folder to file", dir("/a/d"), isFile("/b/g"), Plan{}, ErrOntoFile},
		{"folder to folder", dir("/a/d"), isDir("/b"), Plan{"/b", "d", "d"}, nil},
		{"folder that ends in a slash to folder", dir("/a/d/"), isDir("/b"), Plan{"/b", "d", "d"}, nil},
		{"content to folder", dir("/a/d/."), isDir("/b"), Plan{"/b", ".", "."}, nil},
		{"content to new name", dir("/a/d/."), none("/b/e"), Plan{"/b", ".", "e"}, nil},
		{"content to file", dir("/a/d/."), isFile("/b/g"), Plan{}, ErrOntoFile},
		{"the root to folder", dir("/"), isDir("/b"), Plan{"/b", ".", "."}, nil},
		{"the root to new name", dir("/"), none("/b/e"), Plan{"/b", ".", "e"}, nil},
		{"working directory to folder", dir("."), isDir("/b"), Plan{"/b", ".", "."}, nil},
		{"file that ends in a slash", file("/a/f/"), isDir("/b"), Plan{}, ErrNotFolder},
		{"content of a file", file("/a/f/."), isDir("/b"), Plan{}, ErrNotFolder},
		{"to a name in the working directory", file("/a/f"), none("g"), Plan{".", "f", "g"}, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := NewPlan(row.src, row.dst)
			if got != row.want || !errors.Is(err, row.err) || (err != nil) != (row.err != nil) {
				t.Errorf("got %+v, %v, want %+v, %v", got, err, row.want, row.err)
			}
		})
	}
}

func TestNewSource(t *testing.T) {
	if _, err := NewSource("m:/x", tarcopy.Stat{}, false); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a source that does not exist: %v", err)
	}
	for _, row := range []struct {
		found  tarcopy.Stat
		follow bool
		dir    bool
	}{
		{tarcopy.Stat{Mode: unix.S_IFREG}, false, false},
		{tarcopy.Stat{Mode: unix.S_IFDIR, IsDir: true}, false, true},
		{tarcopy.Stat{Mode: unix.S_IFLNK, IsDir: true}, false, false},
		{tarcopy.Stat{Mode: unix.S_IFLNK, IsDir: true}, true, true},
		{tarcopy.Stat{Mode: unix.S_IFLNK}, true, false},
	} {
		if got, err := NewSource("/x", row.found, row.follow); err != nil || got.Dir != row.dir {
			t.Errorf("%+v: got %+v, %v", row, got, err)
		}
	}
}

func TestTargets(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return dir + "/" + name }
	for _, err := range []error{
		os.Mkdir(at("d"), 0o755), os.WriteFile(at("f"), nil, 0o600), unix.Mkfifo(at("p"), 0o600),
		os.Symlink("d", at("to-d")), os.Symlink("f", at("to-f")), os.Symlink("d/new", at("dangling")), os.Symlink("p", at("to-p")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		path         string
		host, guest  Target // with paths below dir
		noHost, errs bool
	}{
		{path: "d", host: Target{"d", true, true, false}, guest: Target{"d", true, true, false}},
		{path: "d/", host: Target{"d/", true, true, false}, guest: Target{"d/", true, true, false}},
		{path: "f", host: Target{"f", true, false, false}, guest: Target{"f", true, false, false}},
		{path: "p", host: Target{"p", true, false, true}, guest: Target{"p", true, false, true}},
		{path: "new", host: Target{"new", false, false, false}, guest: Target{"new", false, false, false}},
		{path: "to-d", host: Target{"d", true, true, false}, guest: Target{"d", true, true, false}},
		{path: "to-f", host: Target{"to-f", true, false, false}, guest: Target{"f", true, false, false}},
		{path: "to-p", host: Target{"to-p", true, false, false}, guest: Target{"p", true, false, true}},
		{path: "dangling", host: Target{"dangling", true, false, false}, guest: Target{"d/new", false, false, false}},
		{path: "none/new", noHost: true, guest: Target{"none/new", false, false, false}},
		{path: "f/", noHost: true, errs: true},
		{path: "f/x", noHost: true, errs: true},
	} {
		t.Run(row.path, func(t *testing.T) {
			got, err := HostTarget(at(row.path))
			row.host.Path = at(row.host.Path)
			if (err != nil) != row.noHost || err == nil && got != row.host {
				t.Errorf("on the host: %+v, %v", got, err)
			}
			got, err = GuestTarget(at(row.path), tarcopy.Lookup)
			row.guest.Path = at(row.guest.Path)
			if (err != nil) != row.errs || err == nil && got != row.guest {
				t.Errorf("in a machine: %+v, %v", got, err)
			}
		})
	}
}

// FuzzPlan checks that a path of a machine cannot lead to a path of the host outside
// of the destination.
func FuzzPlan(f *testing.F) {
	f.Add("m:/etc/passwd", "/tmp", false, true)
	f.Add("m:a/../../.", "x/..", true, true)
	f.Add("m://", ".", true, false)
	f.Add(":", "-", false, false)
	f.Add("m:a", "..//.", true, false)
	f.Fuzz(func(t *testing.T, src, dst string, isDir, dstDir bool) {
		from, err := Parse(src)
		if err != nil || from.Machine == "" {
			return
		}
		if !strings.HasPrefix(from.Path, "/") || strings.Contains(from.Path+"/", "/../") {
			t.Fatalf("%q is %+v", src, from)
		}
		to, err := Parse(dst)
		if err != nil || to.Machine != "" || to.Stream {
			return
		}
		if clean := filepath.Clean(to.Path); clean == "/" || clean == "." {
			dstDir = true // always a folder
		}
		plan, err := NewPlan(Source{Path: from.Path, Dir: isDir}, Target{Path: to.Path, Exists: dstDir, Dir: dstDir})
		if err != nil {
			return
		}
		for _, name := range []string{plan.From, plan.To} {
			if name == "" || name == ".." || strings.Contains(name, "/") {
				t.Fatal(fmt.Errorf("%q to %q: %+v", src, dst, plan))
			}
		}
	})
}
