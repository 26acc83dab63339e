package qemu

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseTSC(t *testing.T) {
	for _, row := range []struct {
		name, text string
		want       int
	}{
		{"first processor", "processor\t: 0\nbogomips\t: 4191.98\n\nprocessor\t: 1\nbogomips\t: 1.00\n", 2095990},
		{"none", "processor\t: 0\n", 0},
		{"empty", "", 0},
		{"a word", "bogomips\t: fast\n", 0},
		{"not a number", "bogomips\t: NaN\n", 0},
		{"endless", "bogomips\t: +Inf\n", 0},
		{"negative", "bogomips\t: -5\n", 0},
		{"zero", "bogomips\t: 0.00\n", 0},
	} {
		if got, err := parseTSC(strings.NewReader(row.text)); got != row.want || err != nil {
			t.Errorf("%s: %d, %v, want %d", row.name, got, err, row.want)
		}
	}
}

func TestChooseID(t *testing.T) {
	const host = "         0          0 4294967295\n"
	for _, row := range []struct {
		name, random, uids, gids string
		want                     uint32
	}{
		{"the host's, lowest", "\x00\x00\x00\x00", host, host, 0x70000000},
		{"the host's, highest", "\xff\xff\xff\xff", host, host, 0x7fffffff},
		{"root alone", "abcd", "         0       1000          1\n", "0 1000 1\n", 0},
		{"users alone", "abcd", host, "0 1000 1\n", 0},
		{"groups alone", "abcd", "0 1000 1\n", host, 0},
		{"a rootless container's", "abcd", "0 1000 1\n1 100000 65536\n", host, 65534},
		{"up to nobody", "abcd", "0 0 65534\n", host, 0},
		{"with nobody", "abcd", "0 0 65535\n", host, 65534},
		{"nobody besides root", "abcd", "0 1000 1\n65534 65534 1\n", host, 65534},
		{"empty", "abcd", "", host, 0},
		{"damaged", "abcd", "0 0\n", host, 0},
	} {
		if got, err := chooseID(strings.NewReader(row.random), row.uids, row.gids); got != row.want || err != nil {
			t.Errorf("%s: %d, %v, want %d", row.name, got, err, row.want)
		}
	}
	if id, err := chooseID(strings.NewReader("abc"), host, host); err == nil {
		t.Errorf("without random bytes: %d", id)
	}
}

// TestCredential: two machines of root's are two users, without root's groups.
func TestCredential(t *testing.T) {
	if os.Geteuid() != 0 {
		if cred, err := credential(""); cred != nil || err != nil {
			t.Errorf("a plain user becomes %v, %v", cred, err)
		}
		return
	}
	one, err := credential("")
	if err != nil {
		t.Fatal(err)
	}
	if one == nil {
		t.Skip("this root has no other id")
	}
	two, err := credential("")
	if err != nil {
		t.Fatal(err)
	}
	if one.Uid == 0 || one.Gid == 0 || len(one.Groups) != 0 || one.NoSetGroups {
		t.Errorf("credential %+v", one)
	}
	if one.Uid >= firstOwn && one.Uid == two.Uid {
		t.Errorf("two machines are the same user, %d", one.Uid)
	}
	device := filepath.Join(t.TempDir(), "kvm")
	for _, row := range []struct {
		mode os.FileMode
		gid  int
		want []uint32
	}{{0o660, 4321, []uint32{4321}}, {0o640, 4321, nil}, {0o660, 0, nil}} {
		if err := os.WriteFile(device, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Chmod(device, row.mode), os.Chown(device, 0, row.gid)); err != nil {
			t.Fatal(err)
		}
		cred, err := credential(device)
		if err != nil || !slices.Equal(cred.Groups, row.want) {
			t.Errorf("device of group %d, mode %v: %+v, %v", row.gid, row.mode, cred, err)
		}
	}
}

// TestOpenBoot: what another user cannot open again is passed as a copy that
// it can, and nothing else is copied.
func TestOpenBoot(t *testing.T) {
	for _, row := range []struct {
		name   string
		mode   os.FileMode
		others bool
		copied bool
	}{
		{"public for others", 0o644, true, false},
		{"private for others", 0o600, true, true},
		{"private for the owner", 0o600, false, false},
	} {
		path := filepath.Join(t.TempDir(), "kernel")
		if err := os.WriteFile(path, []byte("kernel"), row.mode); err != nil {
			t.Fatal(err)
		}
		f, err := openBoot(path, row.others)
		if err != nil {
			t.Fatal(err)
		}
		again, err := os.Open(descriptorPath(int(f.Fd())))
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(again)
		if string(data) != "kernel" || err != nil {
			t.Errorf("%s: %q, %v", row.name, data, err)
		}
		st, err := again.Stat()
		if err != nil {
			t.Fatal(err)
		}
		original, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := !os.SameFile(st, original); got != row.copied {
			t.Errorf("%s: copied %t, want %t", row.name, got, row.copied)
		}
		if row.others && st.Mode()&0o004 == 0 {
			t.Errorf("%s: mode %v", row.name, st.Mode())
		}
		again.Close()
		f.Close()
	}
}

func TestReadMessageLimit(t *testing.T) {
	for _, row := range []struct {
		length int
		ok     bool
	}{{maxMessage, true}, {maxMessage + 1, false}} {
		const frame = `{"event": ""}` + "\n"
		text := strings.Replace(frame, `""`, `"`+strings.Repeat("e", row.length-len(frame))+`"`, 1)
		m, err := readMessage(bufio.NewReaderSize(strings.NewReader(text), maxMessage))
		if (err == nil) != row.ok || row.ok && len(m.Event) != row.length-len(frame) {
			t.Errorf("%d bytes: %d, %v", len(text), len(m.Event), err)
		}
	}
	if _, err := readMessage(bufio.NewReader(strings.NewReader(`{"event": "CUT`))); !errors.Is(err, errClosed) {
		t.Errorf("a message cut short: %v", err)
	}
}

// FuzzReadMessage reads a connection to its end: whatever comes, messages are
// bounded and reading ends.
func FuzzReadMessage(f *testing.F) {
	for _, seed := range []string{
		`{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}` + "\n",
		`{"return": {"status": "running", "singlestep": false, "running": true}, "id": 2}` + "\n",
		`{"id": 1, "error": {"class": "CommandNotFound", "desc": "The command x has not been found"}}` + "\n",
		`{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}` + "\n{}\n",
		"{\"id\": -1}\n", "{\"id\": 1e99}\n", "null\n", "[]\n", "\n\n", "{\"event\"", strings.Repeat("[", 5000) + "\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		q := &qmp{greeted: make(chan struct{}), waiting: map[uint64]chan message{1: make(chan message, 1)}}
		err := q.readAll(bufio.NewReaderSize(strings.NewReader(string(data)), 1<<10))
		if err == nil {
			t.Fatal("reading ends without an error")
		}
		if len(err.Error()) > 1<<10 {
			t.Fatalf("error of %d bytes", len(err.Error()))
		}
	})
}
