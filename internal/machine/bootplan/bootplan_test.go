package bootplan

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/machine/spec"
	"github.com/banger-vm/banger/test/support/tinyimage"
)

func testFiles() []tinyimage.File {
	const reg, dir, link = tar.TypeReg, tar.TypeDir, tar.TypeSymlink
	return []tinyimage.File{
		tinyimage.Entry("usr/bin", "", 0o755, dir),
		tinyimage.Entry("bin", "usr/bin", 0o777, link),
		tinyimage.Entry("usr/bin/tool", tinyimage.Program(tinyimage.AMD64), 0o755, reg),
		tinyimage.Entry("usr/bin/alien", tinyimage.Program(tinyimage.ARM64), 0o755, reg),
		tinyimage.Entry("usr/bin/script", "#!/bin/tool -x\n", 0o755, reg),
		tinyimage.Entry("usr/bin/orphan", "#!/usr/bin/python9\n", 0o755, reg),
		tinyimage.Entry("usr/bin/empty-line", "#!\n", 0o755, reg),
		tinyimage.Entry("usr/bin/plain", "data", 0o644, reg),
		tinyimage.Entry("usr/bin/torn", "\x7fELF", 0o755, reg),
		tinyimage.Entry("usr/bin/header", "\x7fELF\x02\x01\x01"+strings.Repeat("\x00", 20), 0o755, reg),
		tinyimage.Entry("usr/bin/there", "/etc/alternatives/there", 0o777, link),
		tinyimage.Entry("etc/alternatives/there", "../../usr/bin/tool", 0o777, link),
		tinyimage.Entry("usr/bin/loop", "loop", 0o777, link),
		tinyimage.Entry("work/local", tinyimage.Program(tinyimage.AMD64), 0o755, reg),
	}
}

// TestR1Bootable checks the reasons for which a command of an image cannot run.
func TestR1Bootable(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the programs of the test are for amd64")
	}
	path := tinyimage.Disk(t, testFiles())
	for _, row := range []struct {
		name    string
		command []string
		want    string // part of the error; "" if the image runs
		code    int
	}{
		{"a program in PATH", []string{"tool"}, "", 0},
		{"through a directory that is a symlink", []string{"/bin/tool"}, "", 0},
		{"through absolute and climbing symlinks", []string{"/usr/bin/there"}, "", 0},
		{"relative to the working directory", []string{"./local"}, "", 0},
		{"a script", []string{"script"}, "", 0},
		{"no command", nil, "neither an entrypoint nor a command", 0},
		{"no such program", []string{"nope"}, "no such file", 127},
		{"below a file", []string{"/usr/bin/tool/x"}, "no such file", 127},
		{"a symlink to itself", []string{"/usr/bin/loop"}, "symbolic links", 0},
		{"a directory", []string{"/usr"}, "is a directory", 126},
		{"not executable", []string{"/usr/bin/plain"}, "not executable", 126},
		{"for another architecture", []string{"alien"}, "EM_AARCH64", 126},
		{"a script whose interpreter is missing", []string{"orphan"}, "python9", 126},
		{"a script that names no interpreter", []string{"empty-line"}, "names no interpreter", 126},
		{"a truncated ELF file", []string{"torn"}, "not for a 64-bit machine", 126},
		{"an ELF file with only a header", []string{"header"}, "not a sound ELF", 126},
		{"not executable, found in PATH", []string{"plain"}, "not executable", 126},
		{"shell form without a shell", []string{"/bin/sh", "-c", "tool"}, "shell form and it has no shell", 127},
	} {
		t.Run(row.name, func(t *testing.T) {
			img := &store.Image{Platform: "linux/amd64", Config: store.Config{Cmd: row.command, WorkingDir: "/work"}}
			plan, err := New(img, path, &spec.Config{})
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
		if _, err := New(img, path, &spec.Config{}); !errors.Is(err, ErrNotBootable) || !strings.Contains(err.Error(), "arm64") {
			t.Errorf("error = %v", err)
		}
	})
}

// TestR1HostileELF checks a file whose header claims a section table that does
// not fit into memory.
func TestR1HostileELF(t *testing.T) {
	b := []byte(tinyimage.Program(tinyimage.AMD64))
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

// TestR1Init checks the choice of process 1.
func TestR1Init(t *testing.T) {
	bare := tinyimage.Disk(t, testFiles())
	full := tinyimage.Disk(t, append(testFiles(), tinyimage.Entry("sbin/init", "../usr/bin/tool", 0o777, tar.TypeSymlink)))
	for _, row := range []struct {
		name, disk string
		cmd        []string // Cmd of the image
		conf       spec.Config
		init       guest.Init
		initArgs   []string
		main       bool
		fails      bool
	}{
		{"a command", full, []string{"tool"}, spec.Config{}, guest.InitBanger, nil, true, false},
		{"a command that is an init", full, []string{"/sbin/init", "-x"}, spec.Config{}, guest.InitImage, []string{"/sbin/init", "-x"}, false, false},
		{"an init as a command of banger's init", full, []string{"/sbin/init"}, spec.Config{Init: spec.InitBanger}, guest.InitBanger, nil, true, false},
		{"the image's init beside its command", full, []string{"tool"}, spec.Config{Init: spec.InitImage}, guest.InitImage, []string{"/sbin/init"}, false, false},
		{"the image's init beside the user's command", full, nil, spec.Config{Init: spec.InitImage, Args: []string{"tool"}}, guest.InitImage, []string{"/sbin/init"}, true, false},
		{"the image's init, with a setting of a command", full, []string{"/sbin/init"}, spec.Config{User: "dev"}, "", nil, false, true},
		{"an init that the image does not have", bare, []string{"tool"}, spec.Config{Init: spec.InitImage}, "", nil, false, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.conf.Init = spec.OrDefault(row.conf.Init, spec.InitAuto)
			plan, err := New(&store.Image{Config: store.Config{Cmd: row.cmd, User: "dev"}}, row.disk, &row.conf)
			if row.fails != (err != nil) {
				t.Fatalf("error = %v, want one: %v", err, row.fails)
			}
			if err == nil && (plan.Init != row.init || !slices.Equal(plan.InitArgs, row.initArgs) || (plan.Main != nil) != row.main) {
				t.Errorf("plan = %+v", plan)
			}
		})
	}
}

// TestShellOfTheUser checks that a missing shell that the user asks for is no fault of
// the image's shell form.
func TestShellOfTheUser(t *testing.T) {
	path := tinyimage.Disk(t, testFiles())
	shell := "sh"
	for _, c := range []spec.Config{{Entrypoint: &shell, Args: []string{"-c", "id"}}, {Args: []string{"sh", "-c", "id"}}} {
		_, err := New(&store.Image{Platform: "linux/amd64"}, path, &c)
		if err == nil || err.Error() != "image cannot run: sh: no such file in the image" {
			t.Errorf("error = %v", err)
		}
	}
}
