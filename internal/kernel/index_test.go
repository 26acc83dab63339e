package kernel

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestModules(t *testing.T) {
	k := pull(t, openStore(t), "deb:"+writeFile(t, "k.deb", debOf(t, testControl, "xz", kernelTree(t)...)), "k", Options{})
	for name, row := range map[string]struct{ wanted, order, missing string }{
		"dependency order":       {"virtio_blk", "virtio virtio_ring virtio_blk", ""},
		"dash for underscore":    {"virtio-blk virtio-ring", "virtio virtio_ring virtio_blk", ""},
		"twice":                  {"virtio virtio", "virtio", ""},
		"modules.builtin":        {"ext4 jbd2", "", ""},
		"configuration":          {"devtmpfs", "", ""},
		"soft dependency":        {"soft", "sum soft", ""},
		"alias":                  {"crypto_sum", "sum", ""},
		"cycle":                  {"cycle", "cycle2 cycle", ""},
		"nothing":                {"", "", ""},
		"missing":                {"virtio fuse overlay fuse", "", "fuse overlay"},
		"missing dependency":     {"lost", "", "nowhere"},
		"module in config alone": {"virtio_blk xfs", "", "xfs"},
	} {
		t.Run(name, func(t *testing.T) {
			mods, err := k.Modules(t.Context(), strings.Fields(row.wanted))
			var got []string
			for _, m := range mods {
				got = append(got, m.Name)
				if _, err := parseModinfo(m.Data); err != nil {
					t.Errorf("%s is not decompressed: %v", m.Name, err)
				}
			}
			if strings.Join(got, " ") != row.order {
				t.Errorf("order %v, want %s", got, row.order)
			}
			missing, ok := errors.AsType[*MissingError](err)
			if (row.missing == "") != (err == nil) || ok && !slices.Equal(missing.Missing, strings.Fields(row.missing)) {
				t.Errorf("error %v, want %q missing", err, row.missing)
			}
		})
	}
}

func TestFeatures(t *testing.T) {
	s := openStore(t)
	k := pull(t, s, "deb:"+writeFile(t, "k.deb", debOf(t, testControl, "xz", kernelTree(t)...)), "k", Options{})
	features, err := k.Features()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]State{}
	for _, f := range features {
		got[f.Name] = f.State
	}
	for name, want := range map[string]State{
		"ext4": BuiltIn, "devtmpfs": BuiltIn, "virtio_blk": IsModule, "virtio_console": Missing, "pvh": BuiltIn, "fuse": Missing,
	} {
		if got[name] != want {
			t.Errorf("%s is %s, want %s", name, got[name], want)
		}
	}
	bare := pull(t, s, "", "bare", Options{Files: Files{Kernel: writeFile(t, "k", vmlinux("6.2.0", true))}})
	if features, err = bare.Features(); err != nil || features[0].State != Unknown {
		t.Errorf("without a configuration: %v, %v", features[0], err)
	}
	if mods, err := bare.Modules(t.Context(), []string{"virtio_blk"}); err != nil || len(mods) != 0 {
		t.Errorf("without a configuration: %v, %v", mods, err)
	}
}

// TestDepmod reads what is made for modprobe.
func TestDepmod(t *testing.T) {
	var x index
	infos := []modinfo{
		{name: "a", aliases: []string{"fs-a", "x[0-9]-y"}},
		{name: "b", depends: []string{"a"}, aliases: []string{"fs-a"}},
		{name: "c", depends: []string{"b", "a"}, soft: []string{"pre: q"}},
	}
	for _, i := range infos {
		x.add("kernel/"+i.name+".ko", i)
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

func TestWhatIsWrittenCanBeRead(t *testing.T) {
	x := index{Builtin: []string{"ext4"}}
	data, err := encodeIndex(&x, maxIndex)
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(data))
	if _, err := encodeIndex(&x, size); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := encodeIndex(&x, size-1); err == nil {
		t.Error("over the limit: no error")
	}
	k := &Kernel{dir: t.TempDir(), Manifest: Manifest{Warnings: []string{strings.Repeat("w", maxManifest)}}}
	if err := k.write(); err == nil {
		t.Error("a manifest was written that is not read")
	}
}

func TestFirstFewWarnings(t *testing.T) {
	if got := firstFew(slices.Repeat([]string{"w"}, 20)); len(got) != 20 || got[19] != "w" {
		t.Errorf("of 20: %q", got)
	}
	if got := firstFew(slices.Repeat([]string{"w"}, 25)); len(got) != 21 || got[20] != "and 5 more" {
		t.Errorf("of 25: %q", got)
	}
}
