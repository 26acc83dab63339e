package boot

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/guest"
)

func TestHasWord(t *testing.T) {
	for _, row := range []struct {
		line string
		want bool
	}{
		{"console=ttyS0 banger.probe quiet\n", true},
		{"banger.probe", true},
		{"banger.probe=1 xbanger.probe banger.probes", false},
		{"", false},
	} {
		if got := hasWord(row.line, guest.ProbeWord); got != row.want {
			t.Errorf("hasWord(%q) = %v", row.line, got)
		}
	}
}

// fakeDisk creates the files that /sys/block has for a disk.
func fakeDisk(t *testing.T, sys, name, serial, sectors string) {
	t.Helper()
	dir := filepath.Join(sys, name)
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "queue"), 0o755), fakeDiscards(dir, "0\n")); err != nil {
		t.Fatal(err)
	}
	if serial != "" {
		if err := os.WriteFile(filepath.Join(dir, "serial"), []byte(serial), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "size"), []byte(sectors), 0o644); err != nil {
		t.Fatal(err)
	}
}

func fakeDiscards(dir, maxBytes string) error {
	return os.WriteFile(filepath.Join(dir, "queue/discard_max_bytes"), []byte(maxBytes), 0o644)
}

func TestFindDisk(t *testing.T) {
	sys := t.TempDir()
	fakeDisk(t, sys, "loop0", "", "0\n")
	fakeDisk(t, sys, "vda", guest.ModulesSerial, "8\n")
	fakeDisk(t, sys, "vdb", guest.RootSerial+"-not", "8\n")
	fakeDisk(t, sys, "vdc", guest.RootSerial+"\n", "2097152\n")
	d, err := findDisk(sys, guest.RootSerial, 0)
	if err != nil || d.path() != "/dev/vdc" || d.size != 1<<30 || d.discards {
		t.Errorf("findDisk: %+v, %v", d, err)
	}
	if err := fakeDiscards(filepath.Join(sys, "vdc"), "2147450880\n"); err != nil {
		t.Fatal(err)
	}
	if d, err := findDisk(sys, guest.RootSerial, 0); err != nil || !d.discards {
		t.Errorf("a disk that supports discard: %+v, %v", d, err)
	}
	_, err = findDisk(sys, "none", 0)
	if err == nil || !strings.Contains(err.Error(), "vda, vdb, vdc") {
		t.Errorf("a missing disk: %v, want the names of the others", err)
	}
	fakeDisk(t, sys, "vde", "odd", "-1")
	if _, err = findDisk(sys, "odd", 0); err == nil {
		t.Error("a negative size was accepted")
	}
}

// A disk may appear after its driver was loaded.
func TestFindDiskWaits(t *testing.T) {
	sys := t.TempDir()
	added := make(chan struct{})
	go func() {
		defer close(added)
		dir := filepath.Join(sys, "vda")
		err := errors.Join(os.MkdirAll(filepath.Join(dir, "queue"), 0o755), fakeDiscards(dir, "0"), os.WriteFile(filepath.Join(dir, "size"), []byte("8"), 0o644),
			os.WriteFile(filepath.Join(dir, "serial"), []byte("late"), 0o644))
		if err != nil {
			t.Error(err)
		}
	}()
	_, err := findDisk(sys, "late", time.Minute)
	<-added
	if err != nil {
		t.Error(err)
	}
}

func superblock(blocks uint64, incompat, log uint32, magic uint16) []byte {
	b := make([]byte, superSize)
	binary.LittleEndian.PutUint32(b[0x4:], uint32(blocks))
	binary.LittleEndian.PutUint32(b[0x150:], uint32(blocks>>32))
	binary.LittleEndian.PutUint32(b[0x18:], log)
	binary.LittleEndian.PutUint32(b[0x60:], incompat)
	binary.LittleEndian.PutUint16(b[0x38:], magic)
	return b
}

func TestParseSuper(t *testing.T) {
	for _, row := range []struct {
		name string
		b    []byte
		want super
		ok   bool
	}{
		{"4 KiB blocks", superblock(262144, 0, 2, superMagic), super{262144, 4096}, true},
		{"64bit", superblock(1<<33, feature64, 2, superMagic), super{1 << 33, 4096}, true},
		{"high half without 64bit", superblock(1<<33|7, 0, 0, superMagic), super{7, 1024}, true},
		{"no magic", superblock(1, 0, 2, 0), super{}, false},
		{"huge blocks", superblock(1, 0, 60, superMagic), super{}, false},
		{"huge size", superblock(1<<63, feature64, 2, superMagic), super{}, false},
		{"short", make([]byte, 100), super{}, false},
	} {
		got, err := parseSuper(row.b)
		if got != row.want || (err == nil) != row.ok {
			t.Errorf("%s: %+v, %v; want %+v", row.name, got, err, row.want)
		}
	}
}

func TestHosts(t *testing.T) {
	for _, row := range []struct{ hostname, address, want string }{
		{"box", "", "127.0.1.1\tbox\n"},
		{"box.example.org", "10.0.2.15/24", "10.0.2.15\tbox.example.org box\n"},
	} {
		got := hosts(row.hostname, row.address)
		if !strings.HasSuffix(got, "\n"+row.want) || !strings.HasPrefix(got, "127.0.0.1\tlocalhost\n") {
			t.Errorf("hosts(%q, %q) = %q", row.hostname, row.address, got)
		}
	}
}

func TestResolvConf(t *testing.T) {
	n := guest.Network{DNS: []string{"10.0.2.3", "fe80::1"}, Search: []string{"a.b", "c"}}
	if got, want := resolvConf(&n), "nameserver 10.0.2.3\nnameserver fe80::1\nsearch a.b c\n"; got != want {
		t.Errorf("resolvConf = %q, want %q", got, want)
	}
}

// The clock of a machine may be ahead by the time that it took to start the
// kernel. It is not set back then.
func TestClockIsWrong(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	up := 3 * time.Second
	for _, row := range []struct {
		name string
		now  time.Time
		want bool
	}{
		{"exact", start.Add(up), false},
		{"coarse clock", start.Add(up - time.Second), false},
		{"slow start", start.Add(up + 20*time.Second), false},
		{"1970", time.Unix(3, 0), true},
		{"an hour ahead", start.Add(time.Hour), true},
		{"behind", start.Add(up - 1100*time.Millisecond), true},
	} {
		if got := clockIsWrong(row.now, start, up); got != row.want {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
}

func TestRunsProgram(t *testing.T) {
	for _, row := range []struct {
		name string
		pid  int
		stat string
		want bool
	}{
		{"program", 90, "90 (sh) S 83 90 83 0 -1", true},
		{"odd name", 91, "91 (a) Z 2 (b) R 1 1 1", true},
		{"zombie", 92, "92 (sh) Z 83 90 83 0 -1", false},
		{"kthreadd", 2, "2 (kthreadd) S 0 0 0", false},
		{"kernel thread", 9, "9 (kworker/u2:0) I 2 0 0", false},
		{"garbage", 9, "9", false},
	} {
		if got := runsProgram(row.pid, row.stat); got != row.want {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
}

func TestDiskMounts(t *testing.T) {
	const mounts = "/dev/vda / ext4 rw 0 0\nproc /proc proc rw 0 0\ntmpfs /run tmpfs rw 0 0\n" +
		"/dev/vdb /lib/modules ext4 ro 0 0\n/dev/vdc /mnt/a\\040b ext4 rw 0 0\n\n"
	want := []string{"/", "/lib/modules", "/mnt/a b"}
	if got := diskMounts(mounts); !slices.Equal(got, want) {
		t.Errorf("diskMounts = %q, want %q", got, want)
	}
}

func TestProtect(t *testing.T) {
	err := protect(func() error { panic("oops") })
	var p *panicError
	if !errors.As(err, &p) || err.Error() != "panic: oops" || !strings.Contains(string(p.stack), "TestProtect") {
		t.Errorf("a panic: %v", err)
	}
	want := errors.New("x")
	if err := protect(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("an error: %v", err)
	}
}

// fail prints one line even if the error has several.
func TestFailPrintsOneLine(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "console"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := &machine{console: f}
	m.fail(errors.Join(errors.New("first"), errors.New("second")))
	b, err := os.ReadFile(f.Name())
	if want := guest.ErrorPrefix + "first; second\n"; err != nil || string(b) != want {
		t.Errorf("console has %q, %v; want %q", b, err, want)
	}
}

func TestLoadModulesNamesTheModule(t *testing.T) {
	err := loadModules(t.TempDir(), []string{"none.ko"})
	if err == nil || !strings.Contains(err.Error(), "load module none.ko") {
		t.Errorf("a missing module: %v", err)
	}
}

func TestCopyTree(t *testing.T) {
	image, tmpfs := t.TempDir(), t.TempDir()
	err := errors.Join(
		os.MkdirAll(filepath.Join(image, "db/sub"), 0o755),
		os.Chmod(filepath.Join(image, "db"), 0o777|os.ModeSticky|os.ModeSetgid),
		os.WriteFile(filepath.Join(image, "db/pid"), []byte("1"), 0o640),
		os.WriteFile(filepath.Join(image, "large"), make([]byte, maxCopySize+1), 0o640),
		os.Symlink("/etc/passwd", filepath.Join(image, "link")),
	)
	if os.Getuid() == 0 {
		err = errors.Join(err, os.Chown(filepath.Join(image, "db"), 999, 888))
	}
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(image)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	left, err := copyTree(root, tmpfs)
	if err != nil || left != 1 {
		t.Fatalf("copyTree left %d out, want the large file alone: %v", left, err)
	}
	for _, name := range []string{"db", "db/sub", "db/pid", "link"} {
		want, err := os.Lstat(filepath.Join(image, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.Lstat(filepath.Join(tmpfs, name))
		if err != nil || got.Mode() != want.Mode() || owner(t, got) != owner(t, want) {
			t.Errorf("%s: %v, %v; want %v", name, got, err, want.Mode())
		}
	}
	if b, err := os.ReadFile(filepath.Join(tmpfs, "db/pid")); err != nil || string(b) != "1" {
		t.Errorf("content: %q, %v", b, err)
	}
	if to, err := os.Readlink(filepath.Join(tmpfs, "link")); err != nil || to != "/etc/passwd" {
		t.Errorf("link: %q, %v", to, err)
	}
}
