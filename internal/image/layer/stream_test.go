package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/banger-vm/banger/internal/image/tree"
)

// TestWrappedEOFIsNotTheEnd checks that Unpack does not treat an error that
// wraps io.EOF as the end of the stream. Broken connections return such errors.
func TestWrappedEOFIsNotTheEnd(t *testing.T) {
	cause := &url.Error{Op: "Get", URL: "http://registry/blob", Err: io.EOF}
	good := makeTar(t, []tar.Header{{Name: "f", Typeflag: tar.TypeReg}}, map[string]string{"f": strings.Repeat("0123456789", 30000)})
	for name, stored := range map[string][]byte{"gzip": gzipped(t, good), "zstd": zstdCompressed(t, good), "none": good} {
		for _, n := range []int{0, 3, len(stored) / 2, len(stored)} {
			r := io.MultiReader(bytes.NewReader(stored[:n]), &failingReader{cause})
			_, err := Unpack(t.Context(), r, discardAt{}, io.Discard, Options{DiffID: diffIDOf(good)})
			if got, ok := errors.AsType[*url.Error](err); !ok || got != cause {
				t.Errorf("%s after %d bytes: %v", name, n, err)
			}
		}
	}
}

// hugeFile returns a tar with one file of 4 GiB.
func hugeFile() *zeroReader {
	return &zeroReader{head: rawHeader("f", flagRegular, 1<<32, nil), n: 1 << 32}
}

// cancellingSpool cancels the context at the first write.
type cancellingSpool struct{ cancel context.CancelFunc }

func (c cancellingSpool) WriteAt(p []byte, _ int64) (int, error) {
	c.cancel()
	return len(p), nil
}

// TestCancelEndsAllWork cancels Unpack. synctest.Test returns only after all
// goroutines that were started in it have ended.
func TestCancelEndsAllWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		head := withBody(rawHeader("first", flagRegular, 2<<20, nil), strings.Repeat("x", 2<<20))
		for range 10 {
			ctx, cancel := context.WithCancel(t.Context())
			rest := hugeFile()
			_, err := Unpack(ctx, io.MultiReader(bytes.NewReader(head), rest), cancellingSpool{cancel}, io.Discard, Options{})
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v", err)
			}
			if read := 1<<32 - rest.n; read > 32<<20 {
				t.Errorf("read on for %d bytes", read)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 0)
		defer cancel()
		if _, err := Unpack(ctx, hugeFile(), discardAt{}, io.Discard, Options{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("past the deadline: %v", err)
		}
	})
}

// TestFailuresLeaveNoGoroutines checks that no goroutine is left after an
// error. synctest.Test fails if one is.
func TestFailuresLeaveNoGoroutines(t *testing.T) {
	good := makeTar(t, []tar.Header{{Name: "f", Typeflag: tar.TypeReg}}, map[string]string{"f": strings.Repeat("x", 12<<20)})
	stored := zstdCompressed(t, good)
	for _, o := range []Options{{}, {DiffID: diffIDOf(nil)}, {Limits: Limits{Bytes: NewBudget(5 << 20)}}} {
		for _, in := range [][]byte{stored, stored[:len(stored)-9], append(bytes.Repeat([]byte("junk"), 300), good...)} {
			for _, bodies := range []io.WriterAt{failingSpool{}, discardAt{}} {
				synctest.Test(t, func(t *testing.T) {
					if _, err := Unpack(t.Context(), bytes.NewReader(in), bodies, io.Discard, o); err == nil && len(in) < len(stored) {
						t.Error("a truncated layer was accepted")
					}
				})
			}
		}
	}
}

// allocated returns the total number of bytes that do allocates.
func allocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestMemoryIsBounded(t *testing.T) {
	bomb := zstdBomb(t, 256<<20)
	manyPAX := func() io.Reader { // 60 headers of nearly 1 MiB; Unpack keeps none of them
		one := pax("f", "comment="+strings.Repeat("c", 1<<20-100))
		readers := make([]io.Reader, 0, 60)
		for range 60 {
			readers = append(readers, bytes.NewReader(one))
		}
		return io.MultiReader(append(readers, bytes.NewReader(make([]byte, 2*blockSize)))...)
	}
	labels := bytes.Repeat(rawHeader("label", flagVolume, 0, nil), 200_000)
	for name, c := range map[string]struct {
		r     io.Reader
		limit uint64 // of all allocations, MiB
	}{
		"256 MiB of zeros": {bytes.NewReader(bomb), 40},
		"PAX headers":      {manyPAX(), 160}, // most of it garbage
		"volume labels":    {bytes.NewReader(append(labels, make([]byte, 2*blockSize)...)), 20},
		"declared sizes":   {bytes.NewReader(rawHeader("p", flagPax, 1<<20, nil)), 20},
	} {
		got := allocated(func() {
			_, err := Unpack(t.Context(), c.r, discardAt{}, io.Discard, Options{})
			if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s: %v", name, err)
			}
		})
		if got > c.limit<<20 {
			t.Errorf("%s: %d MiB allocated, want at most %d", name, got>>20, c.limit)
		}
	}
}

func TestBudgetIsShared(t *testing.T) {
	plain := makeTar(t, []tar.Header{{Name: "f", Typeflag: tar.TypeReg}}, map[string]string{"f": strings.Repeat("x", 3<<20)})
	budget := NewBudget(5 << 20)
	if _, err := unpack(t, plain, Options{Limits: Limits{Bytes: budget}}); err != nil {
		t.Errorf("the first layer: %v", err)
	}
	_, err := unpack(t, plain, Options{Limits: Limits{Bytes: budget}})
	if limit, ok := errors.AsType[*tree.LimitError](err); !ok || limit.Limit != 5<<20 {
		t.Errorf("the second layer: %v", err)
	}
}

func TestErrorsNameTheEntry(t *testing.T) {
	for _, plain := range [][]byte{
		rawHeader("bad\nname", 'Q', 0, nil), pax("bad\nname", "mtime=x"),
		rawHeader("bad\nname", flagRegular, 5000, nil), pax("x", "path=bad\nname", "uid=-1"),
	} {
		_, err := unpack(t, plain, Options{})
		entry, ok := errors.AsType[*tree.EntryError](err)
		if !ok || entry.Name != "bad\nname" || !strings.Contains(err.Error(), `"bad\nname"`) {
			t.Errorf("got %v", err)
		}
	}
}

// TestB3OutputDoesNotDependOnReads checks that the number of processors and
// the size of reads do not change the output.
func TestB3OutputDoesNotDependOnReads(t *testing.T) {
	var headers []tar.Header
	bodies := map[string]string{}
	for i := range 300 {
		name := fmt.Sprint("f", i)
		headers = append(headers, tar.Header{Name: name, Typeflag: tar.TypeReg, Format: tar.FormatPAX, PAXRecords: map[string]string{
			"SCHILY.xattr.user.a": "1", "SCHILY.xattr.user.b": "2", "LIBARCHIVE.xattr.user.c": "AAAA", "SCHILY.xattr.user.d": "4",
		}})
		bodies[name] = strings.Repeat("data", i*40) + strings.Repeat("\x00", i*50) + "end"
	}
	stored := gzipped(t, makeTar(t, headers, bodies))
	var want []byte
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, procs := range []int{1, 2, 8} {
		runtime.GOMAXPROCS(procs)
		for _, piece := range []int{1, 511, 1 << 20} {
			var table bytes.Buffer
			s := &spool{t: t}
			if _, err := Unpack(t.Context(), &slowReader{stored, piece}, s, &table, Options{}); err != nil {
				t.Fatal(err)
			}
			got := append(table.Bytes(), s.data...)
			if want == nil {
				want = got
			}
			if !bytes.Equal(got, want) {
				t.Errorf("output differs with %d processors and reads of %d bytes", procs, piece)
			}
		}
	}
}

// slowReader returns at most n bytes per read.
type slowReader struct {
	data []byte
	n    int
}

func (s *slowReader) Read(p []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.n)], s.data)
	s.data = s.data[n:]
	return n, nil
}
