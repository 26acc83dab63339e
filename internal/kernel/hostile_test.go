package kernel

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestHostilePackages gives each attack its row. None gets a kernel, writes
// to the probe or leaves anything.
func TestHostilePackages(t *testing.T) {
	probe := filepath.Join(t.TempDir(), "probe")
	if err := os.Mkdir(probe, 0o755); err != nil {
		t.Fatal(err)
	}
	tree := kernelTree(t)
	with := func(files ...file) []byte {
		return debOf(t, testControl, "gzip", append(slices.Clone(tree), files...)...)
	}
	good := with()
	control := string(compressed(t, "gzip", tarOf(t, file{name: "control", content: testControl})))
	data := string(compressed(t, "gzip", tarOf(t, tree...)))
	mods := "./lib/modules/" + testRelease + "/"
	device := func() []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, f := range tree[:7] {
			h := &tar.Header{Name: f.name, Mode: 0o755, Size: int64(len(f.content)), Typeflag: tar.TypeReg}
			if strings.HasSuffix(f.name, "/") {
				h.Typeflag = tar.TypeDir
			}
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			io.WriteString(w, f.content)
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
		"empty":                       {nil, "not an ar archive"},
		"not ar":                      {[]byte("PK\x03\x04 and so on"), "not an ar archive"},
		"nothing after the magic":     {[]byte("!<arch>\n"), "EOF"},
		"cut off in data":             {good[:len(good)-len(good)/4], "EOF"},
		"cut off in a header":         {good[:30], "header"},
		"size beyond the end":         {bytes.Replace(good, []byte("4         `"), []byte("9999999999`"), 1), "want 2.0"},
		"negative size":               {bytes.Replace(good, []byte("4         `"), []byte("-4        `"), 1), "size"},
		"size with a sign":            {bytes.Replace(good, []byte("4         `"), []byte("+4        `"), 1), "size"},
		"format 3":                    {arOf("debian-binary", "3.0\n", "control.tar.gz", control, "data.tar.gz", data), "want 2.0"},
		"first member of another":     {arOf("x", "2.0\n"), "not a Debian package"},
		"path as a member's name":     {arOf("debian-binary", "2.0\n", "../../x", "x"), "name"},
		"unknown member":              {arOf("debian-binary", "2.0\n", "evil", "x"), "member \"evil\""},
		"no data":                     {arOf("debian-binary", "2.0\n", "control.tar.gz", control), "no data.tar"},
		"data before control":         {arOf("debian-binary", "2.0\n", "data.tar.gz", data), "no control.tar"},
		"no control file":             {arOf("debian-binary", "2.0\n", "control.tar", string(tarOf(t)), "data.tar.gz", data), "no control file"},
		"control is garbage":          {arOf("debian-binary", "2.0\n", "control.tar", strings.Repeat("x", 600), "data.tar.gz", data), "control.tar"},
		"package name is an option":   {debOf(t, "Package: -oDir=x\nVersion: 1\n", "gzip", tree...), "control file of package"},
		"version with a path":         {debOf(t, "Package: linux-image-x\nVersion: ../1\n", "gzip", tree...), "control file of package"},
		"many members":                {arOf(append([]string{"debian-binary", "2.0\n"}, slices.Repeat([]string{"_x", ""}, 100)...)...), "more than 64 members"},
		"path climbs out":             {with(file{name: "../../../../../.." + probe + "/x", content: "x"}), "name contains .."},
		"absolute path":               {with(file{name: probe + "/x", content: "x"}), "name is absolute"},
		"symlink climbs out":          {with(file{name: "./boot/config-x", target: "../../../../.." + probe}), "unsafe symlink"},
		"write through a symlink":     {with(file{name: "./s", target: probe}, file{name: "./s/x", content: "x"}), "symlink"},
		"modules folder is a link":    {debOf(t, testControl, "gzip", file{name: "./boot/"}, tree[2], file{name: "./lib", target: probe}, file{name: mods + "x.ko", content: "x"}), "symlink"},
		"device among the modules":    {arOf("debian-binary", "2.0\n", "control.tar.gz", control, "data.tar", string(device())), "neither a file"},
		"module is no ELF file":       {with(file{name: mods + "bad.ko", content: "bad"}), "module bad.ko"},
		"module is a program":         {with(file{name: mods + "bad.ko", content: string(vmlinux("1", true))}), "is no module"},
		"module cut off":              {with(file{name: mods + "bad.ko.xz", content: string(compressed(t, "xz", module("name=x"))[:40])}), "module bad.ko.xz"},
		"kernel is no kernel":         {with(file{name: "./boot/vmlinuz-6", content: "#!/bin/sh"}), "neither a bzImage"},
		"kernel's release is a path":  {with(file{name: "./boot/vmlinuz-6", content: string(bzImage("../../x", nil))}), "release"},
		"kernel's release is hidden":  {with(file{name: "./boot/vmlinuz-6", content: string(bzImage(".6", nil))}), "release"},
		"no kernel":                   {debOf(t, testControl, "gzip", tree[4:]...), "no kernel in it"},
		"compressed with lzma's like": {arOf("debian-binary", "2.0\n", "control.tar.gz", control, "data.tar.lzma", "\x5d\x00\x00\x80\x00 and so on"), "tar ends"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			_, _, err := s.Pull(t.Context(), "deb:"+writeFile(t, "x.deb", row.data), "", Options{})
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

// TestAbsoluteSymlinksAreTaken is contract R2: they mean the guest's root.
func TestAbsoluteSymlinksAreTaken(t *testing.T) {
	tree := append(kernelTree(t),
		file{name: "./boot/vmlinuz", target: "/boot/vmlinuz-" + testRelease},
		file{name: "./lib/modules/" + testRelease + "/kernel/alias.ko", target: "/etc/passwd"})
	k := pull(t, openStore(t), "deb:"+writeFile(t, "x.deb", debOf(t, testControl, "xz", tree...)), "", Options{})
	disk, err := openDisk(k.ModulesDisk())
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if _, err := disk.module(t.Context(), "lib/modules/"+testRelease+"/kernel/alias.ko"); err == nil {
		t.Error("a symlink was followed")
	}
}

func TestBombs(t *testing.T) {
	zeros := bytes.Repeat([]byte{0}, 1<<20)
	for _, format := range []string{"none", "gzip", "xz", "zstd", "lz4"} {
		t.Run(format, func(t *testing.T) {
			data := compressed(t, format, zeros)
			if out, err := inflate(t.Context(), data, 1<<20); err != nil || !bytes.Equal(out, zeros) {
				t.Errorf("at the limit: %d bytes, %v", len(out), err)
			}
			_, err := inflate(t.Context(), data, 1<<20-1)
			if size, ok := errors.AsType[*SizeError](err); !ok || size.Limit != 1<<20-1 {
				t.Errorf("over the limit: %v", err)
			}
			var sink bytes.Buffer
			if err := expand(t.Context(), &sink, bytes.NewReader(data), 1000); err == nil || sink.Len() > 1001 {
				t.Errorf("a stream over the limit: %d bytes, %v", sink.Len(), err)
			}
			if format == "none" {
				return
			}
			if _, err := inflate(t.Context(), data[:len(data)-len(data)/3], 1<<20); err == nil {
				t.Error("half a stream was taken")
			}
		})
	}
}

// TestXZDictionary changes the size that a stream asks for: property 28 stands
// for 64 MiB, 31 for 192.
func TestXZDictionary(t *testing.T) {
	data := compressed(t, "xz", []byte("some text"))
	at := bytes.Index(data, []byte{0x21, 1}) + 2
	if at < 2 {
		t.Fatal("no filter LZMA2")
	}
	for property, fits := range map[byte]bool{28: true, 31: false, 40: false} {
		changed := bytes.Clone(data)
		changed[at] = property
		_, err := inflate(t.Context(), changed, 1<<20)
		if err == nil {
			t.Error("a header with a wrong checksum was taken")
		} else if refused := strings.Contains(err.Error(), "xz: dictionary of"); refused == fits {
			t.Errorf("property %d: %v", property, err)
		}
	}
}

func TestLegacyLZ4Blocks(t *testing.T) {
	le := binary.LittleEndian
	head := le.AppendUint32(nil, lz4Magic)
	for name, row := range map[string]struct {
		data []byte
		want string
	}{
		"block of no bytes": {le.AppendUint32(head[:4:4], 0), "block of 0 bytes"},
		"huge block":        {le.AppendUint32(head[:4:4], 1<<31), "block of 2147483648 bytes"},
		"block cut off":     {le.AppendUint32(head[:4:4], 100), "EOF"},
		"garbage":           {append(le.AppendUint32(head[:4:4], 4), 0xff, 0xff, 0xff, 0xff), "lz4"},
		"length cut off":    {append(head[:4:4], 1, 2), "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := inflate(t.Context(), row.data, 1<<20); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error is %v, want %q", err, row.want)
			}
		})
	}
}

func TestHostileBzImages(t *testing.T) {
	le := binary.LittleEndian
	change := func(do func([]byte)) []byte {
		data := bzImage(testRelease, payload(t, "gzip", vmlinux(testRelease, true)))
		do(data)
		return data
	}
	for name, row := range map[string]struct {
		data []byte
		want string
	}{
		"short":                        {make([]byte, 100), "neither"},
		"no magic":                     {change(func(b []byte) { b[0x202] = 'X' }), "neither"},
		"old protocol":                 {change(func(b []byte) { le.PutUint16(b[0x206:], 0x0204) }), "too old"},
		"32 bits":                      {change(func(b []byte) { b[0x236] = 0 }), "32 bits"},
		"version outside":              {change(func(b []byte) { le.PutUint16(b[0x20e:], 0xffff) }), "outside the header"},
		"no version":                   {change(func(b []byte) { le.PutUint16(b[0x20e:], 0) }), "release"},
		"payload outside":              {change(func(b []byte) { le.PutUint32(b[0x248:], 0xffffffff) }), "outside the file"},
		"payload longer than the file": {change(func(b []byte) { le.PutUint32(b[0x24c:], 0xffffffff) }), "outside the file"},
		"no payload":                   {change(func(b []byte) { le.PutUint32(b[0x24c:], 0) }), "outside the file"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := extractVMLinux(t.Context(), row.data); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error is %v, want %q", err, row.want)
			}
		})
	}
	for _, format := range []string{"none", "gzip", "lz4", "xz", "zstd"} {
		want := vmlinux(testRelease, true)
		got, err := extractVMLinux(t.Context(), bzImage(testRelease, payload(t, format, want)))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", format, len(got), err)
		}
	}
}

func FuzzArchive(f *testing.F) {
	f.Add([]byte(debOf(f, testControl, "gzip", kernelTree(f)[:5]...)))
	f.Add(arOf("debian-binary", "2.0\n", "_odd", "x", "control.tar", string(tarOf(f, file{name: "control", content: testControl})), "data.tar", ""))
	f.Add([]byte("!<arch>\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := readDeb(t.Context(), bytes.NewReader(data), io.Discard)
		if err == nil && (!isPackageName(d.name) || !isPackageVersion(d.version)) {
			t.Errorf("package %q, version %q", d.name, d.version)
		}
		ar := &arReader{r: bytes.NewReader(data)}
		total := 0
		for {
			if _, err := ar.next(); err != nil {
				break
			}
			n, err := io.Copy(io.Discard, ar)
			if total += int(n); err != nil {
				break
			}
		}
		if total > len(data) {
			t.Errorf("%d bytes of members in %d", total, len(data))
		}
	})
}

func FuzzKernel(f *testing.F) {
	f.Add(bzImage(testRelease, payload(f, "gzip", vmlinux(testRelease, true))))
	f.Add(bzImage(testRelease, payload(f, "lz4", vmlinux(testRelease, true))))
	f.Add(vmlinux(testRelease, true))
	f.Fuzz(func(t *testing.T, data []byte) {
		img, err := identify(data)
		if err == nil && !IsRelease(img.release) {
			t.Errorf("release %q", img.release)
		}
		if out, err := extractVMLinux(t.Context(), data); err == nil {
			embeddedConfig(t.Context(), out)
		}
	})
}

func FuzzModinfo(f *testing.F) {
	f.Add(module("name=a", "depends=b,c", "softdep=pre: d post: e", "alias=x*"))
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := parseModinfo(data)
		if err != nil {
			return
		}
		for _, d := range info.depends {
			if d == "" || strings.ContainsAny(d, "-,\x00") {
				t.Errorf("dependency %q", d)
			}
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add("virtio_blk virtio virtio_net v fs-xfs virtio_blk")
	f.Fuzz(func(t *testing.T, words string) {
		var root indexNode
		want := map[string][]string{}
		for i, key := range strings.Fields(words) {
			root.add(key, "value", uint32(i))
			if !strings.ContainsFunc(key, func(r rune) bool { return r == 0 || r >= 128 }) {
				want[key] = append(want[key], "value")
			}
		}
		data := root.encode()
		for key, values := range want {
			if got := lookup(data, key); len(got) != len(values) {
				t.Errorf("%q has %d values, want %d", key, len(got), len(values))
			}
		}
		if got := lookup(data, words+"\x01"); len(got) != 0 {
			t.Errorf("a key that is not there has %v", got)
		}
	})
}

// lookup reads an index as index_mm_search of kmod's libkmod-index.c does.
func lookup(data []byte, key string) (values []string) {
	be := binary.BigEndian
	at := be.Uint32(data[8:])
	for at != 0 {
		p := data[at&0x0fffffff:]
		text := func() string {
			end := bytes.IndexByte(p, 0)
			s := string(p[:end])
			p = p[end+1:]
			return s
		}
		if at&nodePrefix != 0 {
			rest, ok := strings.CutPrefix(key, text())
			if !ok {
				return nil
			}
			key = rest
		}
		next := uint32(0)
		if at&nodeChildren != 0 {
			first, last := p[0], p[1]
			if key != "" && key[0] >= first && key[0] <= last {
				next = be.Uint32(p[2+4*int(key[0]-first):])
			}
			p = p[2+4*(int(last-first)+1):]
		}
		if key == "" {
			if at&nodeValues == 0 {
				return nil
			}
			count := be.Uint32(p)
			for p = p[4:]; count > 0; count-- {
				p = p[4:]
				values = append(values, text())
			}
			return values
		}
		if next == 0 {
			return nil
		}
		at, key = next, key[1:]
	}
	return nil
}

// TestHostileDependencies has what is small in an image and large in memory.
func TestHostileDependencies(t *testing.T) {
	long := strings.Repeat("d", 200)
	for name, row := range map[string]struct {
		count int
		info  func(i int) modinfo
		want  string
	}{
		"chain of dependencies": {5000, func(i int) modinfo {
			return modinfo{depends: []string{fmt.Sprintf("m%d", i+1)}}
		}, "bytes of modules.dep"},
		"many aliases": {3, func(i int) modinfo {
			var m modinfo
			for n := range maxNodes / 2 {
				m.aliases = append(m.aliases, fmt.Sprintf("a%d-%06d", i, n))
			}
			return m
		}, "nodes of their indexes"},
		"one alias again and again": {2, func(int) modinfo {
			return modinfo{aliases: slices.Repeat([]string{long}, maxDepmod/len(long))}
		}, "bytes of modules.alias"},
		"long soft dependencies": {2, func(int) modinfo {
			return modinfo{soft: slices.Repeat([]string{long}, maxDepmod/len(long))}
		}, "bytes of modules.softdep"},
	} {
		t.Run(name, func(t *testing.T) {
			var x index
			var infos []modinfo
			for i := range row.count {
				info := row.info(i)
				info.name = fmt.Sprintf("m%d", i)
				infos = append(infos, info)
				x.Modules = append(x.Modules, indexed{Name: info.name, Path: long + info.name + ".ko", Depends: info.depends})
			}
			_, err := depmod(t.Context(), &x, infos, nil)
			if e, ok := errors.AsType[*LimitError](err); !ok || e.What != row.want {
				t.Errorf("got %v, want %s", err, row.want)
			}
		})
	}
}

func TestManyLargeModinfo(t *testing.T) {
	mods := "./lib/modules/" + testRelease + "/"
	tree := kernelTree(t)
	big := string(compressed(t, "zstd", module(slices.Repeat([]string{"alias=" + strings.Repeat("a", 1000)}, 3000)...)))
	for i := range maxKept/3000_000 + 1 {
		tree = append(tree, file{name: fmt.Sprintf("%sbig%d.ko.zst", mods, i), content: big})
	}
	_, _, err := openStore(t).Pull(t.Context(), "deb:"+writeFile(t, "x.deb", debOf(t, testControl, "gzip", tree...)), "", Options{})
	if e, ok := errors.AsType[*LimitError](err); !ok || !strings.Contains(e.What, ".modinfo") {
		t.Errorf("got %v", err)
	}
}

// endless gives the same bytes for ever.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	began := make(chan struct{})
	var once sync.Once
	go func() {
		<-began
		cancel()
	}()
	w := writerFunc(func(p []byte) (int, error) {
		once.Do(func() { close(began) })
		return len(p), nil
	})
	if err := expand(ctx, w, endless{}, 1<<40); !errors.Is(err, context.Canceled) {
		t.Errorf("expand: %v", err)
	}
	if _, err := inflate(ctx, compressed(t, "gzip", []byte("text")), 100); !errors.Is(err, context.Canceled) {
		t.Errorf("inflate: %v", err)
	}
	set := &moduleSet{release: testRelease, files: []moduleFileEntry{{path: "x", data: []byte("x")}}}
	if err := set.writeTar(ctx, tar.NewWriter(io.Discard)); !errors.Is(err, context.Canceled) {
		t.Errorf("write modules: %v", err)
	}
	if err := set.makeIndex(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("index modules: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestManyKernels(t *testing.T) {
	tree := kernelTree(t)
	for i := range maxKernels {
		tree = append(tree, file{name: fmt.Sprintf("./boot/vmlinuz-6.1.%d", i), content: string(bzImage(testRelease, nil))})
	}
	_, _, err := openStore(t).Pull(t.Context(), "deb:"+writeFile(t, "x.deb", debOf(t, testControl, "gzip", tree...)), "", Options{})
	if err == nil || !strings.Contains(err.Error(), "more than 16 kernels") {
		t.Errorf("got %v", err)
	}
}

func TestXZTakesOneStream(t *testing.T) {
	one := compressed(t, "xz", []byte("some text"))
	for name, tail := range map[string][]byte{"stream": one, "padding": make([]byte, 4), "garbage": []byte("x")} {
		if out, err := inflate(t.Context(), append(bytes.Clone(one), tail...), 100); err == nil {
			t.Errorf("%s behind the stream: got %q", name, out)
		}
	}
}
