package source

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/kernel"
)

// TestDepmod looks names up in the indexes as modprobe does.
func TestDepmod(t *testing.T) {
	var x kernel.Index
	infos := []modinfo{
		{name: "a", aliases: []string{"fs-a", "x[0-9]-y"}},
		{name: "b", depends: []string{"a"}, aliases: []string{"fs-a"}},
		{name: "c", depends: []string{"b", "a"}, soft: []string{"pre: q"}},
	}
	for _, i := range infos {
		x.Modules = append(x.Modules, i.indexEntry("kernel/"+i.name+".ko"))
	}
	x.Builtin = []string{"ext4"}
	out, err := depmod(t.Context(), &x, infos, map[string]int{"kernel/b.ko": 0, "kernel/a.ko": 1})
	if err != nil {
		t.Fatal(err)
	}
	want := "kernel/a.ko:\nkernel/b.ko: kernel/a.ko\nkernel/c.ko: kernel/b.ko kernel/a.ko\n"
	if string(out["modules.dep"]) != want {
		t.Errorf("modules.dep is\n%s", out["modules.dep"])
	}
	for _, row := range []struct{ file, key, want string }{
		{"modules.dep.bin", "c", "kernel/c.ko: kernel/b.ko kernel/a.ko"},
		{"modules.alias.bin", "fs_a", "b a"},
		{"modules.alias.bin", "x[0-9]_y", "a"},
		{"modules.builtin.bin", "ext4", ""},
	} {
		if got := strings.Join(lookup(out[row.file], row.key), " "); got != row.want {
			t.Errorf("%s: %s is %q, want %q", row.file, row.key, got, row.want)
		}
	}
	if !strings.Contains(string(out["modules.softdep"]), "softdep c pre: q\n") {
		t.Errorf("modules.softdep is %s", out["modules.softdep"])
	}
}

// TestHostileDependencies has modules that are small in an image and whose
// indexes would be large in memory.
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
			var x kernel.Index
			var infos []modinfo
			for i := range row.count {
				info := row.info(i)
				info.name = fmt.Sprintf("m%d", i)
				infos = append(infos, info)
				x.Modules = append(x.Modules, kernel.ModuleInfo{Name: info.name, Path: long + info.name + ".ko", Depends: info.depends})
			}
			_, err := depmod(t.Context(), &x, infos, nil)
			if e, ok := errors.AsType[*LimitError](err); !ok || e.Unit != row.want {
				t.Errorf("got %v, want %s", err, row.want)
			}
		})
	}
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

// lookup returns the values of key in an index, as index_mm_search of kmod's
// libkmod-index.c does.
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
