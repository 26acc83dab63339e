package bin

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"testing"
	"testing/fstest"
)

func TestProgramIsStaticAndSmall(t *testing.T) {
	b, err := Program()
	if errors.Is(err, ErrNotBuilt) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the guest program has %d bytes", len(b))
	if len(b) > MaxSize {
		t.Errorf("the guest program has %d bytes, more than %d", len(b), MaxSize)
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the guest program needs an interpreter, which the initramfs does not have")
		}
	}
}

func TestNotBuilt(t *testing.T) {
	clean := fstest.MapFS{"dist/README": &fstest.MapFile{}}
	if _, err := program(clean); !errors.Is(err, ErrNotBuilt) {
		t.Errorf("in a clean checkout: %v, want ErrNotBuilt", err)
	}
	built := fstest.MapFS{"dist/banger-guest": &fstest.MapFile{Data: []byte("x")}}
	if b, err := program(built); err != nil || string(b) != "x" {
		t.Errorf("built: %q, %v", b, err)
	}
}
