package render

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/image/build"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// A reporter shows events. Several goroutines may call event. close ends the
// display and must be called once, also after an error.
type reporter interface {
	event(build.Event)
	close()
}

// Progress shows the progress of a build as --progress and --quiet ask for.
// report shows an event; several goroutines may call it. stop ends the display
// and must be called once, also after an error.
func Progress(e *env.Env) (report func(build.Event), stop func()) {
	r := newReporter(e)
	return r.event, r.close
}

func newReporter(e *env.Env) reporter {
	mode := e.Progress
	if e.Quiet && mode == "auto" {
		mode = "none"
	}
	if mode == "auto" {
		mode = "plain"
		if !e.Verbose && hasRows(e.Err) {
			mode = "bars"
		}
	}
	switch mode {
	case "bars":
		return newBars(e.Err)
	case "json":
		return &jsonLines{enc: json.NewEncoder(e.Err)}
	case "none":
		return silence{}
	}
	p := &plainLines{w: e.Err, last: map[int]time.Time{}}
	if e.Verbose {
		p.since = time.Now()
	}
	return p
}

// hasRows reports whether w is a terminal that bars can be drawn on. A terminal
// that does not know its size, such as a serial console, is none.
func hasRows(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, rows, err := term.GetSize(int(f.Fd()))
	return err == nil && rows > 0
}

type silence struct{}

func (silence) event(build.Event) {}
func (silence) close()            {}

// jsonLines writes each event as a line of JSON.
type jsonLines struct {
	mu  sync.Mutex
	enc *json.Encoder
}

func (j *jsonLines) event(e build.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	_ = j.enc.Encode(e) // the build must not end with the reader of its progress
}

func (j *jsonLines) close() {}

// plainLines writes a line for each finished step, and one every plainEvery for
// a layer that takes longer.
type plainLines struct {
	mu    sync.Mutex
	w     io.Writer
	last  map[int]time.Time // time of the last line of a layer, by its number from 1, and of the disk
	since time.Time         // lines begin with the seconds since then, if it is set
}

func (p *plainLines) printf(format string, args ...any) {
	if !p.since.IsZero() {
		fmt.Fprintf(p.w, "%6.2fs ", time.Since(p.since).Seconds())
	}
	fmt.Fprintf(p.w, format+"\n", env.CleanArgs(args)...)
}

const plainEvery = 3 * time.Second

func (p *plainLines) event(e build.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e.Step {
	case build.StepResolve:
		p.printf("resolving %s", e.Text)
	case build.StepLayer:
		p.layer(e)
	case build.StepMerge:
		p.printf("merged %d inodes", e.Done)
	case build.StepBuild:
		p.build(e)
	case build.StepNotice:
		p.printf("%s", e.Text)
	}
}

// build writes a line for the start of the disk, and one every plainEvery.
func (p *plainLines) build(e build.Event) {
	now := time.Now()
	last, started := p.last[0]
	if started && (e.Finished || now.Sub(last) < plainEvery) {
		return
	}
	p.last[0] = now
	switch {
	case !started:
		p.printf("building disk")
	case e.Total == 0 || e.Done == 0:
		p.printf("still building disk")
	default:
		p.printf("building disk: %s of %s", Bytes(e.Done), Bytes(e.Total))
	}
}

func (p *plainLines) layer(e build.Event) {
	now := time.Now()
	if p.last[e.Layer].IsZero() {
		p.last[e.Layer] = now
	}
	if !e.Finished && now.Sub(p.last[e.Layer]) < plainEvery {
		return
	}
	p.last[e.Layer] = now
	state := Bytes(e.Done)
	if e.Text != "" {
		state = env.Clean(e.Text)
	} else if e.Finished {
		state += ", done"
	} else if e.Total > 0 {
		state += " of " + Bytes(e.Total)
	}
	p.printf("layer %d/%d %s %s", e.Layer, e.Layers, layerName(e), state)
}

func (p *plainLines) close() {}

func layerName(e build.Event) string {
	if e.Digest == "" {
		return "tar"
	}
	return e.Digest.Short()
}

// bars shows a progress bar for each layer and one for the disk.
type bars struct {
	mu   sync.Mutex
	pool *mpb.Progress
	bar  map[string]*mpb.Bar
}

func newBars(w io.Writer) *bars {
	const columns = 30
	return &bars{pool: mpb.New(mpb.WithOutput(w), mpb.WithWidth(columns)), bar: map[string]*mpb.Bar{}}
}

func (b *bars) event(e build.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e.Step {
	case build.StepLayer:
		b.update(fmt.Sprintf("layer %d/%d %s", e.Layer, e.Layers, layerName(e)), e)
	case build.StepBuild:
		b.update("disk", e)
	case build.StepNotice:
		fmt.Fprintln(b.pool, env.Clean(e.Text))
	case build.StepResolve, build.StepMerge: // too short to show
	}
}

func (b *bars) update(name string, e build.Event) {
	bar := b.bar[name]
	if bar == nil {
		bar = b.pool.AddBar(max(e.Total, 0),
			mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f"), decor.OnComplete(decor.Name(""), " done")))
		b.bar[name] = bar
	}
	if e.Total > 0 {
		bar.SetTotal(e.Total, false)
	}
	bar.SetCurrent(e.Done)
	if e.Finished {
		bar.SetTotal(-1, true) // the current value becomes the total
	}
}

func (b *bars) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, bar := range b.bar {
		if !bar.Completed() {
			bar.Abort(false)
		}
	}
	b.pool.Wait()
}
