package tarcopy

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The table covers which files may be replaced, and the resulting names and
// metadata.
func TestExtract(t *testing.T) {
	trusted := ExtractOptions{Trusted: true}
	folder := func(name string) entry { return entry{name: name, kind: tar.TypeDir, mode: 0o750} }
	for _, row := range []struct {
		name    string
		before  []string // name/ is a folder, name>target a symlink, name| a pipe, name alone a file
		entries []entry
		opts    ExtractOptions
		want    []string // as in before, with =content
		err     any
	}{
		{name: "a file", entries: []entry{{name: "f", body: "x"}}, want: []string{"f=x"}},
		{name: "a file with a dot before it", entries: []entry{folder("./"), {name: "./f", body: "x"}}, want: []string{"f=x"}},
		{name: "missing folders", entries: []entry{{name: "a/b/f", body: "x"}}, want: []string{"a/", "a/b/", "a/b/f=x"}},
		{name: "a file for a file", before: []string{"f"}, entries: []entry{{name: "f", body: "x"}}, want: []string{"f=x"}},
		{name: "a file for a symlink", before: []string{"g", "f>g"}, entries: []entry{{name: "f", body: "x"}}, want: []string{"f=x", "g="}},
		{name: "a symlink for a file", before: []string{"f"}, entries: []entry{{name: "f", kind: tar.TypeSymlink, target: "/etc"}}, want: []string{"f>/etc"}},
		{name: "a hard link for a file", before: []string{"g"}, entries: []entry{{name: "f", body: "x"}, {name: "g", kind: tar.TypeLink, target: "f"}}, want: []string{"f=x", "g=x"}},
		{name: "a hard link twice", entries: []entry{{name: "f", body: "x"}, {name: "g", kind: tar.TypeLink, target: "f"}, {name: "g", kind: tar.TypeLink, target: "./f"}}, want: []string{"f=x", "g=x"}},
		{name: "a file twice", entries: []entry{{name: "f", body: "x"}, {name: "f", body: "y"}}, want: []string{"f=y"}},
		{name: "a folder on a folder", before: []string{"d/", "d/old"}, entries: []entry{folder("d/"), {name: "d/new", body: "x"}}, want: []string{"d/", "d/new=x", "d/old="}},
		{name: "a folder for a file", before: []string{"f"}, entries: []entry{folder("f/")}, want: []string{"f="}, err: "cannot replace a file with a folder"},
		{name: "a file for a folder", before: []string{"d/"}, entries: []entry{{name: "d"}}, want: []string{"d/"}, err: "cannot replace a folder with a file"},
		{name: "a symlink for a folder", before: []string{"d/"}, entries: []entry{{name: "d", kind: tar.TypeSymlink, target: "x"}}, want: []string{"d/"}, err: "cannot replace a folder"},
		{name: "a folder for a symlink", before: []string{"d/", "l>d"}, entries: []entry{folder("l/")}, want: []string{"d/", "l>d"}, err: "cannot replace a file with a folder"},
		{name: "a file below a file", before: []string{"f"}, entries: []entry{{name: "f/g"}}, want: []string{"f="}, err: unix.ENOTDIR},
		{name: "a read-only folder", entries: []entry{{name: "d/", kind: tar.TypeDir, mode: 0o555}, {name: "d/f"}}, want: []string{"d/", "d/f="}},
		{name: "a pipe", entries: []entry{{name: "p", kind: tar.TypeFifo}}, want: []string{"p|"}},
		{name: "a pipe's place", before: []string{"p|"}, entries: []entry{{name: "p"}}, want: []string{"p|"}, err: "cannot replace a device, pipe or socket"},
		{name: "a pipe's place, trusted", before: []string{"p|"}, entries: []entry{{name: "p"}}, opts: trusted, want: []string{"p="}},
		{name: "another name", entries: []entry{folder("d/"), {name: "d/f", body: "x"}, {name: "d/g", kind: tar.TypeLink, target: "d/f"}}, opts: ExtractOptions{From: "d", To: "n"}, want: []string{"n/", "n/f=x", "n/g=x"}},
		{name: "another name for content", entries: []entry{folder("./"), {name: "./f", body: "x"}}, opts: ExtractOptions{To: "n"}, want: []string{"n/", "n/f=x"}},
		{name: "another name for a file", before: []string{"n"}, entries: []entry{{name: "f", body: "x"}}, opts: ExtractOptions{From: "f", To: "n"}, want: []string{"n=x"}},
		{name: "a symlink on the way, trusted", before: []string{"d/", "l>d"}, entries: []entry{{name: "l/f", body: "x"}}, opts: trusted, want: []string{"d/", "d/f=x", "l>d"}},
		{name: "a global header", entries: []entry{{name: "g", kind: tar.TypeXGlobalHeader, records: map[string]string{"comment": "x"}}, {name: "f"}}, want: []string{"f="}},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range row.before {
				createFile(t, dir, name)
			}
			notes, err := extract(t.Context(), streamOf(t, row.entries), dir, row.opts)
			if !is(err, row.err) {
				t.Fatalf("error %v, want %v", err, row.err)
			}
			t.Cleanup(func() { must(t, exec.CommandContext(context.Background(), "chmod", "-R", "u+w", dir).Run()) })
			if got := list(t, dir); !slices.Equal(got, row.want) || len(notes) > 0 {
				t.Errorf("found %q, want %q; notes %q", got, row.want, notes)
			}
		})
	}
}

// streamOf is tarOf with global headers, which have a format of their own.
func streamOf(t *testing.T, entries []entry) []byte {
	t.Helper()
	if len(entries) == 0 || entries[0].kind != tar.TypeXGlobalHeader {
		return tarOf(t, entries...)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: entries[0].name, PAXRecords: entries[0].records}))
	must(t, w.Flush())
	return append(b.Bytes(), tarOf(t, entries[1:]...)...)
}

func createFile(t *testing.T, dir, name string) {
	t.Helper()
	path := filepath.Join(dir, name)
	switch {
	case strings.HasSuffix(name, "/"):
		must(t, os.Mkdir(path, 0o700))
	case strings.HasSuffix(name, "|"):
		must(t, unix.Mkfifo(strings.TrimSuffix(path, "|"), 0o600))
	case strings.Contains(name, ">"):
		name, target, _ := strings.Cut(name, ">")
		must(t, os.Symlink(target, filepath.Join(dir, name)))
	default:
		must(t, os.WriteFile(path, nil, 0o600))
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	must(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || path == dir {
			return err
		}
		name := strings.TrimPrefix(path, dir+"/")
		switch info.Mode().Type() {
		case os.ModeDir:
			name += "/"
		case os.ModeNamedPipe:
			name += "|"
		case os.ModeSymlink:
			target, err := os.Readlink(path)
			must(t, err)
			name += ">" + target
		case os.ModeDevice | os.ModeCharDevice:
			name += "!"
		default:
			b, err := os.ReadFile(path)
			must(t, err)
			name += "=" + string(b)
		}
		names = append(names, name)
		return nil
	}))
	return names
}

// The table covers the owners, mode bits and attributes of extracted files.
func TestExtractOwners(t *testing.T) {
	requireRoot(t)
	xattrs := map[string]string{"SCHILY.xattr.user.u": "1", "SCHILY.xattr.security.capability": capability, "SCHILY.xattr.trusted.t": "2"}
	entries := []entry{
		{name: "root", mode: 0o6755, records: xattrs},
		{name: "user", mode: 0o6755, uid: 1000},
		{name: "folder", kind: tar.TypeDir, mode: 0o3755, uid: 1000},
		{name: "device", kind: tar.TypeChar},
	}
	for _, row := range []struct {
		name  string
		opts  ExtractOptions
		want  []string // mode, owner and attribute names of root, user, folder and device
		notes int
	}{
		{"nothing is trusted", ExtractOptions{}, []string{"100755 0", "100755 0", "41755 0", ""}, 1},
		{"owners", ExtractOptions{Owners: true}, []string{"106755 0 security.capability user.u", "106755 1000", "43755 1000", ""}, 2},
		{"trusted", ExtractOptions{Owners: true, Trusted: true}, []string{"106755 0 security.capability trusted.t user.u", "106755 1000", "43755 1000", "20644 0"}, 0},
		{"root's", ExtractOptions{Owners: true, Trusted: true, Owner: &Owner{}}, []string{"106755 0 security.capability trusted.t user.u", "100755 0", "41755 0", "20644 0"}, 0},
		{"a user's", ExtractOptions{Owners: true, Trusted: true, Owner: &Owner{7, 7}}, []string{"100755 7 security.capability trusted.t user.u", "100755 7", "41755 7", "20644 7"}, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			notes, err := extract(t.Context(), tarOf(t, entries...), dir, row.opts)
			if err != nil || len(notes) != row.notes {
				t.Fatalf("%v, notes %q", err, notes)
			}
			for i, name := range []string{"root", "user", "folder", "device"} {
				if got := summary(t, filepath.Join(dir, name)); got != row.want[i] {
					t.Errorf("%s: got %q, want %q", name, got, row.want[i])
				}
			}
		})
	}
}

func summary(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return ""
	}
	names := []string{octal(st.Mode), decimal(st.Uid)}
	for _, field := range strings.Fields(attributesOf(t, path)) {
		name, _, _ := strings.Cut(field, "=")
		names = append(names, name)
	}
	return strings.Join(names, " ")
}
