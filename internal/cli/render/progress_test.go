package render

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/image/build"
)

const layerDigest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// show reports the events of a small build to the display that e selects.
func show(e *env.Env) {
	report, stop := Progress(e)
	for _, e := range []build.Event{
		{Step: build.StepResolve, Text: "app:1"},
		{Step: build.StepLayer, Layer: 1, Layers: 2, Digest: layerDigest, Done: 512, Total: 1024},
		{Step: build.StepNotice, Text: "trying again"},
		{Step: build.StepLayer, Layer: 1, Layers: 2, Digest: layerDigest, Done: 1024, Total: 1024, Finished: true},
		{Step: build.StepLayer, Layer: 2, Layers: 2, Done: 0, Total: 2048},
		{Step: build.StepMerge, Done: 7, Finished: true},
		{Step: build.StepBuild, Done: 0, Total: 4096},
		{Step: build.StepBuild, Done: 4096, Total: 4096, Finished: true},
	} {
		report(e)
	}
	stop() // with one layer unfinished, as after an error
}

func TestProgressModes(t *testing.T) {
	for _, row := range []struct {
		name string
		env  env.Env
		want []string
		none []string
	}{
		{"a pipe", env.Env{Progress: "auto"}, []string{"resolving app:1\n", "layer 1/2 aaaaaaaaaaaa 1KiB, done\n", "trying again\n", "merged 7 inodes\n"}, []string{"512"}},
		{"with seconds", env.Env{Progress: "auto", Verbose: true}, []string{"0.0", "s resolving app:1\n"}, nil},
		{"quiet", env.Env{Progress: "auto", Quiet: true}, nil, []string{"a"}},
		{"none", env.Env{Progress: "none"}, nil, []string{"a"}},
		{"quiet lines that are asked for", env.Env{Progress: "plain", Quiet: true}, []string{"resolving app:1\n"}, nil},
	} {
		var out bytes.Buffer
		row.env.Err = &out
		show(&row.env)
		expectText(t, row.name, out.String(), row.want, row.none)
	}
}

// TestSlowDisk checks the lines about a disk that takes longer than plainEvery.
func TestSlowDisk(t *testing.T) {
	var out bytes.Buffer
	p := &plainLines{w: &out, last: map[int]time.Time{}}
	p.event(build.Event{Step: build.StepBuild})
	for _, e := range []build.Event{{Done: 0}, {Done: 1 << 20, Total: 4 << 20}, {Done: 2 << 20, Total: 4 << 20}, {Done: 4 << 20, Total: 4 << 20, Finished: true}} {
		e.Step = build.StepBuild
		p.event(e) // too early for a line
		p.last[0] = p.last[0].Add(-plainEvery)
		p.event(e)
	}
	want := "building disk\nstill building disk\nbuilding disk: 1MiB of 4MiB\nbuilding disk: 2MiB of 4MiB\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

func expectText(t *testing.T, name, got string, want, none []string) {
	t.Helper()
	for _, text := range want {
		if !strings.Contains(got, text) {
			t.Errorf("%s: no %q in %q", name, text, got)
		}
	}
	for _, text := range none {
		if strings.Contains(got, text) {
			t.Errorf("%s: %q in %q", name, text, got)
		}
	}
}

func TestProgressAsJSON(t *testing.T) {
	var out bytes.Buffer
	show(&env.Env{Err: &out, Progress: "json"})
	events := 0
	for dec := json.NewDecoder(&out); dec.More(); events++ {
		var e build.Event
		if err := dec.Decode(&e); err != nil || e.Step == "" {
			t.Fatalf("event %d: %+v, %v", events, e, err)
		}
	}
	if events != 8 {
		t.Errorf("%d events, want 8", events)
	}
}

func TestProgressOnATerminal(t *testing.T) {
	for _, row := range []struct {
		name string
		rows uint16
		want []string
	}{
		{"bars", 30, []string{"layer 1/2 aaaaaaaaaaaa", "1.0 KiB / 1.0 KiB done", "layer 2/2 tar", "trying again", "disk"}},
		{"a terminal without a size", 0, []string{"layer 1/2 aaaaaaaaaaaa 1KiB, done"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			screen, tty, err := pty.Open()
			if err != nil {
				t.Fatal(err)
			}
			defer screen.Close()
			if err := pty.Setsize(tty, &pty.Winsize{Rows: row.rows, Cols: 100 * min(row.rows, 1)}); err != nil {
				t.Fatal(err)
			}
			shown := make(chan string)
			go func() { shown <- readScreen(screen) }()
			show(&env.Env{Err: tty, Progress: "auto"})
			if err := tty.Close(); err != nil {
				t.Fatal(err)
			}
			expectText(t, row.name, <-shown, row.want, nil)
		})
	}
}

// readScreen reads until the last descriptor of the terminal is closed. The read
// fails with EIO then.
func readScreen(screen *os.File) string {
	var all bytes.Buffer
	_, _ = io.Copy(&all, screen) // the error is EIO
	return all.String()
}
