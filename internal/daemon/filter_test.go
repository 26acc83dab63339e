package daemon

import (
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/spec"
)

func TestBadFilters(t *testing.T) {
	for _, text := range []string{"x", "=1", "name=", "label!", "label!=", "color=red", "status=up", "exited=no", "until=never", "until=-1h"} {
		if _, err := parseFilters([]string{text}); codeOf(err) != api.CodeInvalid {
			t.Errorf("filter %q: %v", text, err)
		}
	}
}

func TestFilters(t *testing.T) {
	rec := &record.Record{
		ID: idOne, Config: spec.Config{Name: "web-1", Labels: map[string]string{"tier": "front", "x": ""}}, State: record.StateExited,
		ExitCode: 7, Image: "sha256:abcdef", ImageName: "debian:12", Created: time.Now().Add(-time.Hour),
	}
	for text, want := range map[string]bool{
		"name=web": true, "name=db": false, "id=1111": true, "id=2": false, "label=tier": true, "label=tier=front": true,
		"label=tier=back": false, "label=none": false, "status=exited": true, "status=running": false, "image=debian:12": true,
		"image=docker.io/library/debian:12": true, "image=abcd": true, "image=sha256:abc": true, "image=debian": false,
		"label!=none": true, "label!=tier": false, "label!=tier=back": true, "label!=tier=front": false, "label!=none label!=tier": false,
		"label!=none label!=tier=back label=x": true, "exited=7": true, "exited=0": false, "until=30m": true, "until=2h": false, "until=2001-01-01T00:00:00Z": false,
		"status=exited status=running": true, "status=exited name=db": false,
	} {
		f, err := parseFilters(strings.Fields(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := f.match(rec); got != want {
			t.Errorf("filter %q: %v, want %v", text, got, want)
		}
	}
}
