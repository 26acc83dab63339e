package tarcopy

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Extract recreates all that Pack has read.
func TestRoundTrip(t *testing.T) {
	requireRoot(t)
	from := sampleTree(t)
	to := t.TempDir()
	notes, err := extract(t.Context(), packed(t, from, PackOptions{}), to, ExtractOptions{Owners: true, Trusted: true})
	if err != nil || len(notes) > 0 {
		t.Fatalf("%v, notes %q", err, notes)
	}
	want := describe(t, from)
	if len(want) < 20 {
		t.Fatalf("the sample has only %d files", len(want))
	}
	compare(t, describe(t, filepath.Join(to, "world")), want)
}

func TestPackIsReproducible(t *testing.T) {
	requireRoot(t)
	from := sampleTree(t)
	if !bytes.Equal(packed(t, from, PackOptions{}), packed(t, from, PackOptions{})) {
		t.Error("two streams of one folder differ")
	}
}

// GNU tar reads the output of Pack, and Extract reads that of GNU tar.
func TestGNUTar(t *testing.T) {
	requireRoot(t)
	program, err := exec.LookPath("tar")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	from := sampleTree(t)
	want := describe(t, from)
	run := func(in []byte, args ...string) []byte {
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Stdin = bytes.NewReader(in)
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("tar %q: %v\n%s", args, err, &errs)
		}
		return out
	}
	all := []string{"--xattrs", "--xattrs-include=*.*", "--numeric-owner"}
	to := t.TempDir()
	run(packed(t, from, PackOptions{}), append(all, "-xp", "-C", to)...)
	compare(t, describe(t, filepath.Join(to, "world")), want)

	// GNU tar does not store hard links of pipes.
	must(t, os.Remove(filepath.Join(from, "deep", "pipe again")))
	want = describe(t, from)
	to = t.TempDir()
	stream := run(nil, append(all, "-c", "--format=posix", "-C", filepath.Dir(from), "world")...)
	if _, err := extract(t.Context(), stream, to, ExtractOptions{Owners: true, Trusted: true}); err != nil {
		t.Fatal(err)
	}
	compare(t, describe(t, filepath.Join(to, "world")), want)
}

func TestPackNames(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "d", "e"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "d", "f"), []byte("x"), 0o600))
	must(t, os.Symlink("d", filepath.Join(dir, "to-d")))
	must(t, os.Symlink("d/f", filepath.Join(dir, "to-f")))
	must(t, os.Symlink("nothing", filepath.Join(dir, "dangling")))
	for _, row := range []struct {
		path string
		opts PackOptions
		want []string
		err  any
	}{
		{path: "d", want: []string{"d/", "d/e/", "d/f"}},
		{path: "d/", want: []string{"d/", "d/e/", "d/f"}},
		{path: "d/.", want: []string{"./", "./e/", "./f"}},
		{path: "d", opts: PackOptions{Name: "n"}, want: []string{"n/", "n/e/", "n/f"}},
		{path: "d/f", want: []string{"f"}},
		{path: "to-d/f", want: []string{"f"}},
		{path: "to-d", want: []string{"to-d -> d"}},
		{path: "to-d/", want: []string{"to-d/", "to-d/e/", "to-d/f"}},
		{path: "to-d/.", want: []string{"./", "./e/", "./f"}},
		{path: "to-d", opts: PackOptions{Follow: true}, want: []string{"to-d/", "to-d/e/", "to-d/f"}},
		{path: "to-f", opts: PackOptions{Follow: true}, want: []string{"to-f"}},
		{path: "dangling", want: []string{"dangling -> nothing"}},
		{path: "dangling", opts: PackOptions{Follow: true}, err: unix.ENOENT},
		{path: "nothing", err: unix.ENOENT},
		{path: "d/f/", err: unix.ENOTDIR},
		{path: "d/f/.", err: unix.ENOTDIR},
		{path: "to-f/", err: unix.ENOTDIR},
	} {
		t.Run(row.path, func(t *testing.T) {
			var b bytes.Buffer
			err := Pack(t.Context(), &b, dir+"/"+row.path, row.opts)
			if !is(err, row.err) {
				t.Fatalf("error %v, want %v", err, row.err)
			}
			if err == nil {
				if got := namesOf(t, b.Bytes()); !slices.Equal(got, row.want) {
					t.Errorf("names %q, want %q", got, row.want)
				}
			}
		})
	}
}

func TestPackLeavesOut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	must(t, os.Mkdir(dir, 0o755))
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	must(t, err)
	defer l.Close()
	var notes []string
	names := namesOf(t, packed(t, dir, PackOptions{Note: func(text string) { notes = append(notes, text) }}))
	if !slices.Equal(names, []string{"d/"}) || !slices.Equal(notes, []string{`"d/socket" is a socket, left out`}) {
		t.Errorf("names %q, notes %q", names, notes)
	}
	if err := Pack(t.Context(), &bytes.Buffer{}, filepath.Join(dir, "socket"), PackOptions{}); !is(err, "socket") {
		t.Errorf("a socket by itself: %v", err)
	}
}

// Pack copies mounted file systems, except for the kernel's.
func TestPackMounts(t *testing.T) {
	requireRoot(t)
	dir := filepath.Join(t.TempDir(), "d")
	for kind, name := range map[string]string{"tmpfs": "memory", "proc": "processes"} {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(path, 0o755))
		if err := unix.Mount(kind, path, kind, 0, ""); err != nil {
			t.Skipf("mount: %v", err) // root in a container may not mount
		}
		t.Cleanup(func() { must(t, unix.Unmount(path, 0)) })
	}
	must(t, os.WriteFile(filepath.Join(dir, "memory", "f"), nil, 0o600))
	names := namesOf(t, packed(t, dir, PackOptions{}))
	if !slices.Equal(names, []string{"d/", "d/memory/", "d/memory/f", "d/processes/"}) {
		t.Errorf("names %q", names)
	}
}

func TestContextEnds(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Pack(ctx, &bytes.Buffer{}, dir, PackOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("pack: %v", err)
	}
	if _, err := extract(ctx, tarOf(t, entry{name: "g"}), dir, ExtractOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("extract: %v", err)
	}
}

// A stream that ends early does not change the file that it was to replace.
func TestExtractIncompleteStream(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	must(t, os.WriteFile(path, []byte("before"), 0o600))
	stream := tarOf(t, entry{name: "f", body: strings.Repeat("after", 1000)})
	for size := 1; size < 2048; size += 13 {
		if _, err := extract(t.Context(), stream[:size], dir, ExtractOptions{}); err == nil {
			t.Fatalf("no error after %d bytes of a stream", size)
		}
	}
	b, err := os.ReadFile(path)
	list, listErr := os.ReadDir(dir)
	if err != nil || listErr != nil || string(b) != "before" || len(list) != 1 {
		t.Errorf("%q, %v; in the folder: %v, %v", b, err, list, listErr)
	}
	if _, err := extract(t.Context(), stream, dir, ExtractOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestLookup(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	must(t, os.MkdirAll(filepath.Join(dir, "d", "e"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "f"), []byte("xyz"), 0o640))
	for name, target := range map[string]string{
		"to-f": "f", "to-d": "d/../d", "twice": "to-d/e", "dangling": "to-d/none", "nowhere": "none/none", "loop": "loop",
	} {
		must(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	for _, row := range []struct {
		path, target string
		kind         uint32
		dir          bool
		err          any
	}{
		{path: "f", kind: unix.S_IFREG},
		{path: "d", kind: unix.S_IFDIR, dir: true},
		{path: "none"},
		{path: "f/none", err: unix.ENOTDIR},
		{path: "f/", err: unix.ENOTDIR},
		{path: "to-f", target: "f", kind: unix.S_IFLNK},
		{path: "to-d", target: "d", kind: unix.S_IFLNK, dir: true},
		{path: "to-d/", kind: unix.S_IFDIR, dir: true},
		{path: "twice", target: "d/e", kind: unix.S_IFLNK, dir: true},
		{path: "dangling", target: "d/none", kind: unix.S_IFLNK},
		{path: "nowhere", target: "none/none", kind: unix.S_IFLNK},
		{path: "loop", err: "too many links"},
	} {
		t.Run(row.path, func(t *testing.T) {
			got, err := Lookup(dir + "/" + row.path)
			if !is(err, row.err) {
				t.Fatalf("error %v, want %v", err, row.err)
			}
			if err != nil {
				return
			}
			target := row.target
			if target != "" {
				target = filepath.Join(dir, target)
			}
			if got.Name != filepath.Base(row.path) || got.Mode&unix.S_IFMT != row.kind || got.IsDir != row.dir || got.Target != target {
				t.Errorf("got %+v", got)
			}
		})
	}
	if got, err := Lookup(filepath.Join(dir, "f")); err != nil || got.Size != 3 || got.MTime.IsZero() || got.Mode&0o777 != 0o640 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// If a file shrinks while it is read, the stream stays valid.
func TestShrinkingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(path, bytes.Repeat([]byte("x"), 4*copyBuffer), 0o600))
	var b bytes.Buffer
	shrink := writeFunc(func(p []byte) (int, error) {
		must(t, os.Truncate(path, copyBuffer))
		return b.Write(p)
	})
	var notes []string
	must(t, Pack(t.Context(), shrink, path, PackOptions{Note: func(text string) { notes = append(notes, text) }}))
	r := tar.NewReader(&b)
	h, err := r.Next()
	must(t, err)
	if _, err := r.Next(); h.Size != 4*copyBuffer || len(notes) != 1 || err == nil || err.Error() != "EOF" {
		t.Errorf("%d bytes, notes %q, then %v", h.Size, notes, err)
	}
}
