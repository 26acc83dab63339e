package qemu

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
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

func TestParseStartTime(t *testing.T) {
	const rest = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21\n"
	for _, row := range []struct {
		name, text string
		want       uint64
	}{
		{"plain", "7 (qemu)" + rest, 4242},
		{"name of spaces and brackets", "7 (a) S (b) 1 2)" + rest, 4242},
		{"cut short", "7 (qemu) S 1 2", 0},
		{"empty", "", 0},
		{"no number", strings.Replace("7 (qemu)"+rest, "4242", "x", 1), 0},
	} {
		if got, err := parseStartTime(row.text); got != row.want || (err == nil) != (row.want != 0) {
			t.Errorf("%s: %d, %v, want %d", row.name, got, err, row.want)
		}
	}
}

func TestMapsNobody(t *testing.T) {
	for _, row := range []struct {
		name, text string
		want       bool
	}{
		{"the host's", "         0          0 4294967295\n", true},
		{"root alone", "         0       1000          1\n", false},
		{"a rootless container's", "0 1000 1\n1 100000 65536\n", true},
		{"up to it", "0 0 65534\n", false},
		{"with it", "0 0 65535\n", true},
		{"it alone", "0 1000 1\n65534 65534 1\n", true},
		{"empty", "", false},
		{"damaged", "0 0\n", false},
	} {
		if got := mapsNobody(row.text); got != row.want {
			t.Errorf("%s: %t, want %t", row.name, got, row.want)
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
