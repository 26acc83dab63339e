package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/base/digest"
)

func id(c string) digest.Digest { return digest.Digest("sha256:" + strings.Repeat(c, 64)) }

func image(c string, names ...string) *Image {
	return &Image{
		ID: id(c), Names: names, Source: "test", Platform: "linux/amd64",
		Pulled: time.Unix(int64(c[0]), 0).UTC(),
		Disk:   Disk{File: c + ".ext4", Size: 64 << 20, Builder: "native"},
	}
}

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *Store, img *Image, content string) {
	t.Helper()
	scratch, err := s.Scratch()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := scratch.Remove(); err != nil {
			t.Error(err)
		}
	}()
	disk := filepath.Join(scratch.Path, "disk")
	if err := os.WriteFile(disk, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(img, disk); err != nil {
		t.Fatal(err)
	}
}

func files(t *testing.T, s *Store, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.root, dir))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestPutFindRemove(t *testing.T) {
	s := open(t)
	put(t, s, image("a", "docker.io/library/debian:12"), "disk a")
	put(t, s, image("b", "localhost/app:1"), "disk b")
	for ref, want := range map[string]digest.Digest{
		"localhost/app:1": id("b"), "debian:12": id("a"), "aaaa": id("a"), "sha256:bbbbbb": id("b"), string(id("a")): id("a"),
	} {
		img, err := s.Find(ref, "docker.io/library/"+ref)
		if err != nil || img.ID != want {
			t.Errorf("find %s: %v, %v", ref, img, err)
		}
	}
	for _, ref := range []string{"aaa", "nothing", "", "sha256:"} {
		if _, err := s.Find(ref, ref); !errors.Is(err, ErrNotFound) {
			t.Errorf("find %q: %v", ref, err)
		}
	}
	img, err := s.Find("aaaa", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(img); err != nil {
		t.Fatal(err)
	}
	if got := files(t, s, "disks"); !slices.Equal(got, []string{"b.ext4"}) {
		t.Errorf("disks are %v", got)
	}
	images, damaged, err := s.Images()
	if err != nil || len(damaged) != 0 || len(images) != 1 || images[0].ID != id("b") {
		t.Errorf("images are %v, %v, %v", images, damaged, err)
	}
}

func TestAmbiguousPrefix(t *testing.T) {
	s := open(t)
	first, second := image("a"), image("b")
	second.ID = digest.Digest("sha256:aaaa" + strings.Repeat("b", 60))
	put(t, s, first, "1")
	put(t, s, second, "2")
	_, err := s.Find("aaaa", "")
	if e, ok := errors.AsType[*AmbiguousError](err); !ok || len(e.Images) != 2 {
		t.Errorf("got %v", err)
	}
	if img, err := s.Find("aaaab", ""); err != nil || img.ID != second.ID {
		t.Errorf("got %v, %v", img, err)
	}
}

func TestNamesMoveToTheNewImage(t *testing.T) {
	s := open(t)
	put(t, s, image("a", "x", "y"), "1")
	put(t, s, image("b", "y"), "2")
	images, _, err := s.Images()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(images[0].Names, []string{"y"}) || !slices.Equal(images[1].Names, []string{"x"}) {
		t.Errorf("names are %v and %v", images[0].Names, images[1].Names)
	}
}

// A process may die between the two writes that move a name.
func TestDuplicateNameBelongsToTheNewerImage(t *testing.T) {
	s := open(t)
	for _, img := range []*Image{image("a", "x"), image("b", "x")} {
		img.Schema = Schema
		if err := s.write(img); err != nil {
			t.Fatal(err)
		}
	}
	img, err := s.Find("x", "")
	if err != nil || img.ID != id("b") {
		t.Errorf("got %v, %v", img, err)
	}
	images, _, err := s.Images()
	if err != nil || len(images[1].Names) != 0 {
		t.Errorf("the older image still has %v, %v", images[1].Names, err)
	}
}

func TestReplacedImageLosesItsOldDisk(t *testing.T) {
	s := open(t)
	put(t, s, image("a", "x"), "1")
	again := image("a", "x")
	again.Disk.File = "other.ext4"
	put(t, s, again, "2")
	if got := files(t, s, "disks"); !slices.Equal(got, []string{"other.ext4"}) {
		t.Errorf("disks are %v", got)
	}
}

func TestDamagedRecords(t *testing.T) {
	good := `{"schema":1,"id":"` + string(id("a")) + `","disk":{"file":"a.ext4"}}`
	for name, content := range map[string]string{
		"empty":                 "",
		"garbage":               "\x00\xff{",
		"truncated":             good[:30],
		"of a newer schema":     strings.Replace(good, `"schema":1`, `"schema":2`, 1),
		"of another image":      strings.ReplaceAll(good, "a", "b"),
		"no digest":             strings.Replace(good, "sha256:", "md5:", 1),
		"disk outside":          strings.Replace(good, "a.ext4", "../../a.ext4", 1),
		"disk without a name":   strings.Replace(good, "a.ext4", "", 1),
		"larger than the limit": `{"source":"` + strings.Repeat("x", maxRecord) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			put(t, s, image("c", "c"), "c")
			path := s.recordPath(id("a"))
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(s.root, "disks", "a.ext4"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			images, damaged, err := s.Images()
			if err != nil || len(images) != 1 || len(damaged) != 1 || !strings.Contains(damaged[0].Error(), path) {
				t.Fatalf("got %d images, damaged %v, %v", len(images), damaged, err)
			}
			if err := s.Sweep(); err != nil {
				t.Fatal(err)
			}
			if got := files(t, s, "disks"); len(got) != 2 {
				t.Errorf("a sweep beside a damaged record left %v", got)
			}
			put(t, s, image("a", "a"), "a")
			if _, damaged, _ := s.Images(); len(damaged) != 0 {
				t.Errorf("a new record did not replace the damaged one: %v", damaged)
			}
		})
	}
}

func TestSweepRemovesLeftoversOnly(t *testing.T) {
	s := open(t)
	put(t, s, image("a", "x"), "1")
	live, err := s.Scratch()
	if err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(s.root, "tmp", ".banger-dead")
	for _, dir := range []string{filepath.Join(dead, "deep", "er"), filepath.Join(s.root, "tmp", "not-ours")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"disks/orphan.ext4", "images/.a.json.tmp-1"} {
		if err := os.WriteFile(filepath.Join(s.root, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if got := files(t, s, "disks"); !slices.Equal(got, []string{"a.ext4"}) {
		t.Errorf("disks are %v", got)
	}
	if got := files(t, s, "images"); len(got) != 1 {
		t.Errorf("records are %v", got)
	}
	if got := files(t, s, "tmp"); len(got) != 2 || !slices.Contains(got, "not-ours") || !slices.Contains(got, filepath.Base(live.Path)) {
		t.Errorf("scratch folders are %v", got)
	}
	if err := live.Remove(); err != nil {
		t.Fatal(err)
	}
	if got := files(t, s, "tmp"); len(got) != 1 {
		t.Errorf("after removal: %v", got)
	}
}

func TestLockWaitsAndGivesUp(t *testing.T) {
	s := open(t)
	unlock, err := s.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Lock(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second lock: %v", err)
	}
	unlock()
	again, err := s.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again()
}
