package machine

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/image/build"
	"github.com/banger-vm/banger/internal/image/store"
)

// file is an entry of a test's image.
type file struct {
	name, content string // content of a symlink is its target
	mode          int64
	kind          byte
}

// program is the head of a static ELF executable for a machine.
func program(machine uint16) string {
	const typeExec, headerSize, progSize = 2, 64, 56
	var b bytes.Buffer
	b.Write([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	for _, v := range []any{
		uint16(typeExec), machine, uint32(1), uint64(0x1000), uint64(headerSize), uint64(0), uint32(0),
		uint16(headerSize), uint16(progSize), uint16(0), uint16(0), uint16(0), uint16(0),
	} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	return b.String()
}

const (
	ours   = 62  // EM_X86_64
	theirs = 183 // EM_AARCH64
)

// disk makes the disk of an image from files.
func disk(t testing.TB, files []file) string {
	t.Helper()
	dir := t.TempDir()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Typeflag: f.kind, Mode: f.mode, Size: int64(len(f.content))}
		if f.kind == tar.TypeSymlink {
			h.Linkname, h.Size = f.content, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if f.kind == tar.TypeReg {
			if _, err := w.Write([]byte(f.content)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	source, out := filepath.Join(dir, "image.tar"), filepath.Join(dir, "disk")
	if err := os.WriteFile(source, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	var o build.Options
	o.Pull.CacheDir = filepath.Join(dir, "cache")
	if _, err := build.Convert(t.Context(), "tar:"+source, out, o); err != nil {
		t.Fatal(err)
	}
	return out
}

func testFiles() []file {
	const reg, dir, link = tar.TypeReg, tar.TypeDir, tar.TypeSymlink
	return []file{
		{"usr/bin", "", 0o755, dir},
		{"bin", "usr/bin", 0o777, link},
		{"usr/bin/tool", program(ours), 0o755, reg},
		{"usr/bin/alien", program(theirs), 0o755, reg},
		{"usr/bin/script", "#!/bin/tool -x\n", 0o755, reg},
		{"usr/bin/orphan", "#!/usr/bin/python9\n", 0o755, reg},
		{"usr/bin/empty-line", "#!\n", 0o755, reg},
		{"usr/bin/plain", "data", 0o644, reg},
		{"usr/bin/torn", "\x7fELF", 0o755, reg},
		{"usr/bin/header", "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 20), 0o755, reg},
		{"usr/bin/there", "/etc/alternatives/there", 0o777, link},
		{"etc/alternatives/there", "../../usr/bin/tool", 0o777, link},
		{"usr/bin/loop", "loop", 0o777, link},
		{"work/local", program(ours), 0o755, reg},
	}
}

// TestR1Bootable asks of an image what would keep its command from running.
func TestR1Bootable(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the programs of the test are for amd64")
	}
	path := disk(t, testFiles())
	for _, row := range []struct {
		name    string
		command []string
		want    string // "" for an image that runs
		code    int
	}{
		{"a program in PATH", []string{"tool"}, "", 0},
		{"through a folder that is a symlink", []string{"/bin/tool"}, "", 0},
		{"through absolute and climbing symlinks", []string{"/usr/bin/there"}, "", 0},
		{"relative to the folder", []string{"./local"}, "", 0},
		{"a script", []string{"script"}, "", 0},
		{"nothing", nil, "neither an entrypoint nor a command", 0},
		{"no such program", []string{"nope"}, "no such file", 127},
		{"below a file", []string{"/usr/bin/tool/x"}, "no such file", 127},
		{"a symlink to itself", []string{"/usr/bin/loop"}, "symbolic links", 0},
		{"a folder", []string{"/usr"}, "is a directory", 126},
		{"not executable", []string{"/usr/bin/plain"}, "not executable", 126},
		{"of another architecture", []string{"alien"}, "EM_AARCH64", 126},
		{"a script whose interpreter is not there", []string{"orphan"}, "python9", 126},
		{"a script that names none", []string{"empty-line"}, "names no interpreter", 126},
		{"an ELF file cut off", []string{"torn"}, "not for a 64-bit machine", 126},
		{"an ELF file of nothing but a header", []string{"header"}, "not a sound ELF", 126},
		{"not executable, in PATH", []string{"plain"}, "not executable", 126},
		{"shell form without a shell", []string{"/bin/sh", "-c", "tool"}, "no shell", 127},
	} {
		t.Run(row.name, func(t *testing.T) {
			img := &store.Image{Platform: "linux/amd64", Config: store.Config{Cmd: row.command, WorkingDir: "/work"}}
			plan, err := planBoot(img, path, &Config{})
			if row.want == "" {
				if err != nil || plan.Main == nil || !plan.Main.Main || plan.Init != guest.InitBanger {
					t.Fatalf("plan = %+v, %v", plan, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Fatalf("error = %v, want one with %q", err, row.want)
			}
			var missing *NoCommandError
			if row.code != 0 && (!errors.As(err, &missing) || missing.ExitCode() != row.code || !errors.Is(err, ErrNotBootable)) {
				t.Errorf("error %v gives no exit code %d", err, row.code)
			}
		})
	}
	t.Run("an image for another architecture", func(t *testing.T) {
		img := &store.Image{Platform: "linux/arm64/v8", Config: store.Config{Cmd: []string{"tool"}}}
		if _, err := planBoot(img, path, &Config{}); !errors.Is(err, ErrNotBootable) || !strings.Contains(err.Error(), "arm64") {
			t.Errorf("error = %v", err)
		}
	})
}

// TestR1HostileELF claims a section table that would not fit into memory.
func TestR1HostileELF(t *testing.T) {
	b := []byte(program(ours))
	binary.LittleEndian.PutUint64(b[0x28:], 4096) // e_shoff
	binary.LittleEndian.PutUint16(b[0x3a:], 64)   // e_shentsize
	binary.LittleEndian.PutUint16(b[0x3c:], 1)    // e_shnum
	file := make([]byte, 4096+64)
	copy(file, b)
	binary.LittleEndian.PutUint32(file[4096+4:], 3)        // sh_type: SHT_STRTAB
	binary.LittleEndian.PutUint64(file[4096+0x18:], 0)     // sh_offset
	binary.LittleEndian.PutUint64(file[4096+0x20:], 1<<40) // sh_size
	interp, why := interpreter(file, bytes.NewReader(file))
	if interp != "" || why != "" {
		t.Errorf("interpreter = %q, %q: the section table was read", interp, why)
	}
}

// TestR1Init chooses process 1.
func TestR1Init(t *testing.T) {
	bare := disk(t, testFiles())
	full := disk(t, append(testFiles(), file{"sbin/init", "../usr/bin/tool", 0o777, tar.TypeSymlink}))
	for _, row := range []struct {
		name, disk string
		cmd        []string // of the image
		conf       Config
		init       guest.Init
		initArgs   []string
		main       bool
		fails      bool
	}{
		{"a command", full, []string{"tool"}, Config{}, guest.InitBanger, nil, true, false},
		{"a command that is an init", full, []string{"/sbin/init", "-x"}, Config{}, guest.InitImage, []string{"/sbin/init", "-x"}, false, false},
		{"an init that banger is to run", full, []string{"/sbin/init"}, Config{Init: InitBanger}, guest.InitBanger, nil, true, false},
		{"the image's init beside its command", full, []string{"tool"}, Config{Init: InitImage}, guest.InitImage, []string{"/sbin/init"}, false, false},
		{"the image's init beside a command of the user's", full, nil, Config{Init: InitImage, Args: []string{"tool"}}, guest.InitImage, []string{"/sbin/init"}, true, false},
		{"the image's init, with what only a command has", full, []string{"/sbin/init"}, Config{User: "dev"}, "", nil, false, true},
		{"an init that is not there", bare, []string{"tool"}, Config{Init: InitImage}, "", nil, false, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.conf.Init = orDefault(row.conf.Init, InitAuto)
			plan, err := planBoot(&store.Image{Config: store.Config{Cmd: row.cmd, User: "dev"}}, row.disk, &row.conf)
			if row.fails != (err != nil) {
				t.Fatalf("error = %v, want one: %v", err, row.fails)
			}
			if err == nil && (plan.Init != row.init || !slices.Equal(plan.InitArgs, row.initArgs) || (plan.Main != nil) != row.main) {
				t.Errorf("plan = %+v", plan)
			}
		})
	}
}
