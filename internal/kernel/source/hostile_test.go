package source

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/kernel/kerneltest"
)

// TestHostilePackages has one row for each attack. A pull must fail, must not
// write into the folder probe, and must leave nothing in the store.
func TestHostilePackages(t *testing.T) {
	probe := filepath.Join(t.TempDir(), "probe")
	if err := os.Mkdir(probe, 0o755); err != nil {
		t.Fatal(err)
	}
	tree := kerneltest.Files(t)
	with := func(files ...kerneltest.File) []byte {
		return kerneltest.Deb(t, kerneltest.Control, "gzip", append(slices.Clone(tree), files...)...)
	}
	good := with()
	control := string(kerneltest.Compress(t, "gzip", kerneltest.Tar(t, kerneltest.File{Name: "control", Content: kerneltest.Control})))
	data := string(kerneltest.Compress(t, "gzip", kerneltest.Tar(t, tree...)))
	mods := "./lib/modules/" + kerneltest.Release + "/"
	device := func() []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, f := range tree[:7] {
			h := &tar.Header{Name: f.Name, Mode: 0o755, Size: int64(len(f.Content)), Typeflag: tar.TypeReg}
			if strings.HasSuffix(f.Name, "/") {
				h.Typeflag = tar.TypeDir
			}
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			io.WriteString(w, f.Content)
		}
		if err := w.WriteHeader(&tar.Header{Name: mods + "mem.ko", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 1}); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for name, row := range map[string]struct {
		data []byte
		want string
	}{
		"empty":                      {nil, "not an ar archive"},
		"not ar":                     {[]byte("PK\x03\x04 and so on"), "not an ar archive"},
		"nothing after the magic":    {[]byte("!<arch>\n"), "EOF"},
		"truncated data":             {good[:len(good)-len(good)/4], "EOF"},
		"truncated header":           {good[:30], "header"},
		"size beyond the end":        {bytes.Replace(good, []byte("4         `"), []byte("9999999999`"), 1), "want 2.0"},
		"negative size":              {bytes.Replace(good, []byte("4         `"), []byte("-4        `"), 1), "size"},
		"size with a sign":           {bytes.Replace(good, []byte("4         `"), []byte("+4        `"), 1), "size"},
		"format 3":                   {kerneltest.Ar("debian-binary", "3.0\n", "control.tar.gz", control, "data.tar.gz", data), "want 2.0"},
		"another first member":       {kerneltest.Ar("x", "2.0\n"), "not a Debian package"},
		"member name is a path":      {kerneltest.Ar("debian-binary", "2.0\n", "../../x", "x"), "name"},
		"unknown member":             {kerneltest.Ar("debian-binary", "2.0\n", "evil", "x"), "member \"evil\""},
		"no data":                    {kerneltest.Ar("debian-binary", "2.0\n", "control.tar.gz", control), "no data.tar"},
		"data before control":        {kerneltest.Ar("debian-binary", "2.0\n", "data.tar.gz", data), "no control.tar"},
		"no control file":            {kerneltest.Ar("debian-binary", "2.0\n", "control.tar", string(kerneltest.Tar(t)), "data.tar.gz", data), "no control file"},
		"control is garbage":         {kerneltest.Ar("debian-binary", "2.0\n", "control.tar", strings.Repeat("x", 600), "data.tar.gz", data), "control.tar"},
		"package name is an option":  {kerneltest.Deb(t, "Package: -oDir=x\nVersion: 1\n", "gzip", tree...), "control file of package"},
		"version with a path":        {kerneltest.Deb(t, "Package: linux-image-x\nVersion: ../1\n", "gzip", tree...), "control file of package"},
		"many members":               {kerneltest.Ar(append([]string{"debian-binary", "2.0\n"}, slices.Repeat([]string{"_x", ""}, 100)...)...), "more than 64 members"},
		"path climbs out":            {with(kerneltest.File{Name: "../../../../../.." + probe + "/x", Content: "x"}), "name contains .."},
		"absolute path":              {with(kerneltest.File{Name: probe + "/x", Content: "x"}), "name is absolute"},
		"symlink climbs out":         {with(kerneltest.File{Name: "./boot/config-x", Target: "../../../../.." + probe}), "unsafe symlink"},
		"write through a symlink":    {with(kerneltest.File{Name: "./s", Target: probe}, kerneltest.File{Name: "./s/x", Content: "x"}), "symlink"},
		"modules folder is a link":   {kerneltest.Deb(t, kerneltest.Control, "gzip", kerneltest.File{Name: "./boot/"}, tree[2], kerneltest.File{Name: "./lib", Target: probe}, kerneltest.File{Name: mods + "x.ko", Content: "x"}), "symlink"},
		"device among the modules":   {kerneltest.Ar("debian-binary", "2.0\n", "control.tar.gz", control, "data.tar", string(device())), "neither a file"},
		"module is not an ELF file":  {with(kerneltest.File{Name: mods + "bad.ko", Content: "bad"}), "module bad.ko"},
		"module is a program":        {with(kerneltest.File{Name: mods + "bad.ko", Content: string(kerneltest.VMLinux("1", true))}), "is no module"},
		"truncated module":           {with(kerneltest.File{Name: mods + "bad.ko.xz", Content: string(kerneltest.Compress(t, "xz", kerneltest.Module("name=x"))[:40])}), "module bad.ko.xz"},
		"kernel is a script":         {with(kerneltest.File{Name: "./boot/vmlinuz-6", Content: "#!/bin/sh"}), "neither a bzImage"},
		"kernel's release is a path": {with(kerneltest.File{Name: "./boot/vmlinuz-6", Content: string(kerneltest.BzImage("../../x", nil))}), "release"},
		"kernel's release is hidden": {with(kerneltest.File{Name: "./boot/vmlinuz-6", Content: string(kerneltest.BzImage(".6", nil))}), "release"},
		"no kernel":                  {kerneltest.Deb(t, kerneltest.Control, "gzip", tree[4:]...), "no kernel in it"},
		"unknown compression":        {kerneltest.Ar("debian-binary", "2.0\n", "control.tar.gz", control, "data.tar.lzma", "\x5d\x00\x00\x80\x00 and so on"), "tar ends"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			_, _, err := Pull(t.Context(), s.Store, "deb:"+kerneltest.WriteFile(t, "x.deb", row.data), "", Options{})
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error is %v, want %q", err, row.want)
			}
			kernels, damaged, err := s.List()
			if err != nil || len(kernels)+len(damaged) != 0 || len(leftovers(t, s)) != 0 {
				t.Errorf("left: %v, %v, %v, %v", kernels, damaged, leftovers(t, s), err)
			}
			if entries, err := os.ReadDir(probe); err != nil || len(entries) != 0 {
				t.Errorf("the probe was touched: %v, %v", entries, err)
			}
		})
	}
}

// TestAbsoluteSymlinksAreAccepted checks rule F4 of docs/contract.md: the target
// of an absolute symlink is relative to the guest's root.
func TestAbsoluteSymlinksAreAccepted(t *testing.T) {
	tree := append(kerneltest.Files(t),
		kerneltest.File{Name: "./boot/vmlinuz", Target: "/boot/vmlinuz-" + kerneltest.Release},
		kerneltest.File{Name: "./lib/modules/" + kerneltest.Release + "/kernel/alias.ko", Target: "/etc/passwd"})
	pull(t, openStore(t), "deb:"+kerneltest.WriteFile(t, "x.deb", kerneltest.Deb(t, kerneltest.Control, "xz", tree...)), "", Options{})
}

func TestManyKernels(t *testing.T) {
	tree := kerneltest.Files(t)
	for i := range maxKernels {
		tree = append(tree, kerneltest.File{Name: fmt.Sprintf("./boot/vmlinuz-6.1.%d", i), Content: string(kerneltest.BzImage(kerneltest.Release, nil))})
	}
	_, _, err := Pull(t.Context(), openStore(t).Store, "deb:"+kerneltest.WriteFile(t, "x.deb", kerneltest.Deb(t, kerneltest.Control, "gzip", tree...)), "", Options{})
	if err == nil || !strings.Contains(err.Error(), "more than 16 kernels") {
		t.Errorf("got %v", err)
	}
}
