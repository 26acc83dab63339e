package resource

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

func TestParseStat(t *testing.T) {
	fields := "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 " // fields 3 to 21
	for name, row := range map[string]struct {
		in    string
		want  stat
		fault bool
	}{
		"plain":                   {"7 (sh) " + fields + "4711 0 0", stat{'S', 17, 4711}, false},
		"a name with parentheses": {"7 (a) Z 1 (b) " + fields + "4711", stat{'S', 17, 4711}, false},
		"cut":                     {"7 (sh) " + fields, stat{}, true},
		"empty":                   {"", stat{}, true},
		"no number":               {"7 (sh) " + fields + "x", stat{}, true},
		"no number of threads":    {"7 (sh) " + strings.Replace(fields, " 17 ", " x ", 1) + "4711", stat{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseStat(row.in)
			if got != row.want || (err != nil) != row.fault {
				t.Errorf("%v, %v; want %v", got, err, row.want)
			}
		})
	}
}

func TestEnded(t *testing.T) {
	for _, row := range []struct {
		of   stat
		want bool
	}{
		{stat{state: 'S', threads: 1}, false}, {stat{state: 'Z', threads: 1}, true}, {stat{state: 'X'}, true},
		{stat{state: 'Z', threads: 2}, false}, // only its first thread has ended
	} {
		if got := row.of.ended(); got != row.want {
			t.Errorf("%+v has ended: %v", row.of, got)
		}
	}
}

// nameList encodes a chain of struct dm_name_list.
func nameList(names ...string) (out []byte) {
	for i, name := range names {
		b := binary.NativeEndian.AppendUint64(nil, uint64(i)+1)
		size := (12 + len(name) + 1 + 7) &^ 7
		next := uint32(size)
		if i == len(names)-1 {
			next = 0
		}
		b = binary.NativeEndian.AppendUint32(b, next)
		b = append(b, name...)
		out = append(out, append(b, make([]byte, size-len(b))...)...)
	}
	return out
}

func TestParseNames(t *testing.T) {
	want := []string{"a", "banger-0123456789ab-root", "c"}
	if got := parseNames(nameList(want...)); !slices.Equal(got, want) {
		t.Errorf("names = %q, want %q", got, want)
	}
	if got := parseNames(make([]byte, 16)); len(got) > 0 {
		t.Errorf("an empty list has %q", got)
	}
}

func FuzzParseNames(f *testing.F) {
	f.Add(nameList("a", "b"))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 'x'})
	f.Fuzz(func(t *testing.T, data []byte) {
		if got := parseNames(data); len(got) > len(data)/12 {
			t.Errorf("%d names in %d bytes", len(got), len(data))
		}
	})
}

func TestEncodeTargets(t *testing.T) {
	got, err := encodeTargets([]Target{{0, 8, "zero", ""}, SnapshotTarget("/dev/a", "/dev/b", 16)})
	if err != nil {
		t.Fatal(err)
	}
	first := binary.NativeEndian.Uint32(got[20:])
	if first != 48 || len(got)%8 != 0 {
		t.Errorf("the second target is at %d of %d bytes", first, len(got))
	}
	if second := string(got[first+40:]); strings.TrimRight(second, "\x00") != "/dev/a /dev/b P 8" || second[len(second)-1] != 0 {
		t.Errorf("parameters %q", second)
	}
	if _, err := encodeTargets([]Target{{Type: "a-name-of-16-bytes"}}); err == nil {
		t.Error("a type without room for its zero byte was accepted")
	}
}

// TestSnapshotSpace counts chunks: a header, then areas of one index chunk and the
// 256 chunks that it lists. The kernel requires one chunk more than it uses.
func TestSnapshotSpace(t *testing.T) {
	const chunk = 4096
	for _, row := range []struct{ size, need int64 }{
		{0, 1}, {1, 1 + 1 + 1}, {255 * chunk, 1 + 1 + 255}, {256 * chunk, 1 + 1 + 256},
		{257 * chunk, 1 + 2 + 257}, {1 << 30, 1 + 1024 + 1024*256},
	} {
		got := SnapshotSpace(row.size)
		if got <= row.need*chunk || got > (row.need+3)*chunk || got%SectorSize != 0 {
			t.Errorf("a snapshot of %d bytes has %d, want between 1 and 3 chunks more than %d", row.size, got, row.need*chunk)
		}
	}
}

func FuzzCutMark(f *testing.F) {
	good := loopMark("0123456789ab-01234567", "disk-1")
	if o, name, ok := cutMark(good, loopPrefix); !ok || name != "disk-1" || o != "0123456789ab-01234567" {
		f.Fatalf("%s is %s, %s, %v", good, o, name, ok)
	}
	f.Add(good)
	f.Add("banger-")
	f.Fuzz(func(t *testing.T, s string) {
		if o, name, ok := cutMark(s, loopPrefix); ok && loopMark(o, name) != s {
			t.Errorf("%q is %s, %s", s, o, name)
		}
	})
}
