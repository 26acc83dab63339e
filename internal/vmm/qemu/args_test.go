package qemu

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/vmm"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden")

func config(model vmm.Model, accel vmm.Accel, disks ...vmm.Disk) vmm.Config {
	return vmm.Config{
		Name: "web-1", Model: model, Accel: accel, CPUs: 2, Memory: 512 << 20,
		Kernel: "/k/vmlinux", Initrd: "/k/initrd", Cmdline: []string{"root=none", "x=1"},
		Disks: disks, AgentPort: "banger.agent", Dir: "/run/m",
	}
}

var (
	rawDisk    = vmm.Disk{Serial: "banger-root", Path: "/d,\"1", Format: vmm.Raw}
	qcow2Disk  = vmm.Disk{Serial: "banger-root", Path: "/d/o", Format: vmm.QCOW2, Backing: "/d/b"}
	hostDevice = vmm.Disk{Serial: "banger-root", Path: "/dev/dm-0", Format: vmm.Raw, Device: true}
	readOnly   = vmm.Disk{Serial: "banger-modules", Path: "/d/m", Format: vmm.Raw, ReadOnly: true}
)

// TestArguments compares the command lines with golden files. Review a change
// of them as a change of QEMU's permissions.
func TestArguments(t *testing.T) {
	seen := make(map[string]string)
	for _, model := range []vmm.Model{vmm.MicroVM, vmm.Q35} {
		for _, accel := range []vmm.Accel{vmm.KVM, vmm.TCG} {
			for _, d := range []struct {
				name  string
				disks []vmm.Disk
			}{{"raw", []vmm.Disk{rawDisk}}, {"qcow2", []vmm.Disk{qcow2Disk, readOnly}}, {"readonly", []vmm.Disk{readOnly}}, {"device", []vmm.Disk{hostDevice}}} {
				name := strings.Join([]string{string(model), string(accel), d.name}, "-")
				t.Run(name, func(t *testing.T) {
					cfg := config(model, accel, d.disks...)
					args, err := arguments(&cfg, 2095990)
					if err != nil {
						t.Fatal(err)
					}
					got := strings.Join(args, "\n") + "\n"
					if other, ok := seen[got]; ok {
						t.Errorf("the same command line as %s", other)
					}
					seen[got] = name
					golden(t, filepath.Join("testdata", name+".golden"), got)
				})
			}
		}
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (-update rewrites it), got:\n%s", path, got)
	}
}

func TestArgumentsWithoutPort(t *testing.T) {
	cfg := config(vmm.Q35, vmm.TCG)
	cfg.AgentPort = ""
	args, err := arguments(&cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Join(args, " ")
	for _, no := range []string{"virtio-serial", "virtserialport", "agent", "tsc_early_khz", "blockdev"} {
		if strings.Contains(line, no) {
			t.Errorf("the command line has %s: %s", no, line)
		}
	}
}

func TestRefusedConfigs(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*vmm.Config)
		want   string
	}{
		{"no model", func(c *vmm.Config) { c.Model = "" }, `machine model ""`},
		{"model with an option", func(c *vmm.Config) { c.Model = "q35,usb=on" }, `machine model "q35,usb=on"`},
		{"no accelerator", func(c *vmm.Config) { c.Accel = "" }, `accelerator ""`},
		{"no processors", func(c *vmm.Config) { c.CPUs = 0 }, "0 processors"},
		{"no memory", func(c *vmm.Config) { c.Memory = 0 }, "memory of 0 bytes"},
		{"uneven memory", func(c *vmm.Config) { c.Memory++ }, "memory of 536870913 bytes"},
		{"name with an option", func(c *vmm.Config) { c.Name = "a,process=b" }, `machine name "a,process=b"`},
		{"name like an option", func(c *vmm.Config) { c.Name = "-monitor" }, `machine name "-monitor"`},
		{"name with a second line", func(c *vmm.Config) { c.Name = "a\nb" }, `machine name "a\nb"`},
		{"port with an option", func(c *vmm.Config) { c.AgentPort = "a,nr=1" }, `serial port "a,nr=1"`},
		{"serial number with an option", func(c *vmm.Config) { c.Disks[0].Serial = "a,share-rw=on" }, "disk serial number"},
		{"no serial number", func(c *vmm.Config) { c.Disks[0].Serial = "" }, "disk serial number"},
		{"long serial number", func(c *vmm.Config) { c.Disks[0].Serial = strings.Repeat("a", 21) }, "at most 20"},
		{"serial number twice", func(c *vmm.Config) { c.Disks = append(c.Disks, c.Disks[0]) }, "two disks"},
		{"format", func(c *vmm.Config) { c.Disks[0].Format = "vvfat" }, `format "vvfat"`},
		{"raw with a base", func(c *vmm.Config) { c.Disks[0].Backing = "/b" }, "no backing file"},
		{"word with a space", func(c *vmm.Config) { c.Cmdline = []string{"a init=/evil"} }, `word "a init=/evil"`},
		{"word with a line", func(c *vmm.Config) { c.Cmdline = []string{"a\nb"} }, `word "a\nb"`},
		{"empty word", func(c *vmm.Config) { c.Cmdline = []string{""} }, `word ""`},
		{"word with a zero byte", func(c *vmm.Config) { c.Cmdline = []string{"a\x00"} }, "printable ASCII"},
		{"long command line", func(c *vmm.Config) { c.Cmdline = []string{strings.Repeat("a", 2047)} }, "at most 2047"},
	} {
		t.Run(row.name, func(t *testing.T) {
			cfg := config(vmm.MicroVM, vmm.TCG, rawDisk)
			row.change(&cfg)
			args, err := arguments(&cfg, 0)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v, want an error with %q; arguments %q", err, row.want, args)
			}
		})
	}
}

// TestCommandLineLimit finds the longest command line that is accepted.
func TestCommandLineLimit(t *testing.T) {
	cfg := config(vmm.MicroVM, vmm.KVM)
	cfg.Cmdline = nil
	base, err := cmdline(&cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		length int
		ok     bool
	}{{2047, true}, {2048, false}} {
		cfg.Cmdline = []string{strings.Repeat("a", row.length-len(base)-1)}
		line, err := cmdline(&cfg, 0)
		if (err == nil) != row.ok || row.ok && len(line) != row.length {
			t.Errorf("%d bytes: %d, %v", row.length, len(line), err)
		}
	}
}

// The words for TCG disable protections, so they must not be used with KVM.
func TestNoTranslatorWordsUnderKVM(t *testing.T) {
	for _, accel := range []vmm.Accel{vmm.KVM, vmm.TCG} {
		cfg := config(vmm.MicroVM, accel)
		line, err := cmdline(&cfg, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range tcgWords(1000) {
			if got, want := strings.Contains(line, word), accel == vmm.TCG; got != want {
				t.Errorf("%s under %s: %t, want %t", word, accel, got, want)
			}
		}
	}
}
