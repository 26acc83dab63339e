package machine

import (
	"errors"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/spec"
)

func TestLimitOfMachines(t *testing.T) {
	s := openStore(t)
	s.Limits.Machines = 2
	o := options(t, "")
	s.mustCreate(t, o)
	last := s.mustCreate(t, o)
	if _, _, err := s.Create(t.Context(), o); !errors.Is(err, record.ErrTooMany) {
		t.Errorf("a third machine with a limit of two: %v", err)
	}
	if err := s.Remove(t.Context(), last.ID); err != nil {
		t.Fatal(err)
	}
	s.mustCreate(t, o)
}

func TestOvercommit(t *testing.T) {
	total, available, err := hostMemory()
	if err != nil || available > total || available < 1<<20 {
		t.Fatalf("host has %d of %d: %v", available, total, err)
	}
	running := []*record.Record{{State: record.StateRunning, Config: spec.Config{Memory: total}}, {State: record.StateExited, Config: spec.Config{Memory: total}}}
	for _, row := range []struct {
		name    string
		records []*record.Record
		memory  int64
		want    string
	}{
		{"a small machine alone", nil, 1 << 20, ""},
		{"a small machine beside one that has ended", running[1:], 1 << 20, ""},
		{"a small machine beside a huge one", running, 1 << 20, "with 1 running machines"},
		{"more memory than is available", nil, total - 1<<20, "are available"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := overcommit(row.records, row.memory)
			if err != nil || (got == "") != (row.want == "") || !strings.Contains(got, row.want) {
				t.Errorf("warning %q, %v; want %q", got, err, row.want)
			}
		})
	}
	s := openStore(t)
	o := options(t, "box")
	o.Memory = 1 << 50
	if _, warnings, err := s.Create(t.Context(), o); err != nil || len(warnings) != 1 {
		t.Errorf("warnings %q, %v", warnings, err)
	}
}
