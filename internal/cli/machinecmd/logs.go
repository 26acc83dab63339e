package machinecmd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/connect"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
	"github.com/spf13/cobra"
)

// logsFlags are the flags of logs.
type logsFlags struct {
	follow, console, stamps bool
	tail, since, until      string
}

func logsCommand(e *env.Env) *cobra.Command {
	var l logsFlags
	cmd := &cobra.Command{
		Use: "logs MACHINE", Short: "Show what a machine's command has written",
		Example: `  banger logs -f -n 20 web
  banger logs --since 10m web`,
		Long: "Show what a machine's main command has written, to the output it wrote it to. A\n" +
			"TIME is as 2006-01-02T15:04:05Z or a part of it, seconds since 1970, or an age as 10m.\n" +
			"With --json each line is an object with time, stream and text.",
		Args: arg.Exactly("MACHINE"), ValidArgsFunction: machineNames(e),
		RunE: func(cmd *cobra.Command, args []string) error { return logs(cmd.Context(), e, &l, args[0]) },
	}
	f := cmd.Flags()
	f.BoolVarP(&l.follow, "follow", "f", false, "go on until the machine ends")
	f.BoolVar(&l.console, "console", false, "show the machine's console instead")
	f.BoolVarP(&l.stamps, "timestamps", "t", false, "begin each line with its time")
	f.StringVarP(&l.tail, "tail", "n", "all", "show so many lines, the last ones")
	f.StringVar(&l.since, "since", "", "leave out what was written before this TIME")
	f.StringVar(&l.until, "until", "", "leave out what was written after this TIME")
	return cmd
}

func logs(ctx context.Context, e *env.Env, l *logsFlags, ref string) error {
	req, err := l.request(time.Now())
	if err != nil {
		return err
	}
	out, errs := &logPrinter{to: e.Out, stamps: l.stamps}, &logPrinter{to: e.Err, stamps: l.stamps}
	p := &logPosition{began: time.Now()}
	return connect.Retry(ctx, e, func(daemon *api.Client) error {
		return daemon.Logs(ctx, ref, p.resume(req), func(line api.LogLine) error {
			switch {
			case !p.isNew(line):
				return nil
			case e.JSON:
				return printLogJSON(e.Out, line)
			case line.Stream == "stderr":
				return errs.print(line)
			}
			return out.print(line)
		})
	})
}

// A logPosition is the position in a log behind the lines that were printed, so
// that the next daemon goes on there.
type logPosition struct {
	began   time.Time // when the logs were first requested
	last    time.Time // of the last line
	printed int       // number of lines with the time last
	skip    int       // number of such lines that the present daemon sends again
	resumed bool
}

// resume returns the request for the lines from the position on.
func (p *logPosition) resume(req api.LogsRequest) api.LogsRequest {
	if !p.resumed {
		p.resumed = true
		return req
	}
	p.skip = p.printed
	switch {
	case p.printed > 0:
		req.Since = p.last
	case req.Tail == 0 && req.Since.Before(p.began):
		req.Since = p.began
	}
	req.Tail = -1
	return req
}

// isNew moves the position behind a line. It returns false for a line that was
// before the position.
func (p *logPosition) isNew(line api.LogLine) bool {
	if !line.Time.Equal(p.last) {
		p.last, p.printed, p.skip = line.Time, 1, 0
		return true
	}
	if p.skip > 0 {
		p.skip--
		return false
	}
	p.printed++
	return true
}

func (l *logsFlags) request(now time.Time) (api.LogsRequest, error) {
	req := api.LogsRequest{Console: l.console, Follow: l.follow, Tail: -1}
	if l.tail != "all" {
		n, err := strconv.Atoi(l.tail)
		if err != nil || n < 0 {
			return req, exit.Usagef("--tail=%s: want a number or all", l.tail)
		}
		req.Tail = n
	}
	for _, t := range []struct {
		flag, text string
		to         *time.Time
	}{{"--since", l.since, &req.Since}, {"--until", l.until, &req.Until}} {
		if t.text == "" {
			continue
		}
		at, err := parseTime(t.text, now)
		if err != nil {
			return req, exit.Usagef("%s=%s: %v", t.flag, t.text, err)
		}
		*t.to = at
	}
	return req, nil
}

// parseTime parses a time, which is in the zone of now if the text has no zone, or
// an age before now.
func parseTime(text string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	const lastSecond = 1 << 40 // about 35,000 years from 1970, and far from an overflow
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && math.Abs(seconds) < lastSecond {
		whole, part := math.Modf(seconds)
		return time.Unix(int64(whole), int64(part*float64(time.Second))), nil
	}
	if age, err := time.ParseDuration(text); err == nil {
		return now.Add(-age), nil
	}
	return time.Time{}, fmt.Errorf("want a time as 2006-01-02T15:04:05Z, seconds since 1970, or an age as 10m")
}

// printLogJSON writes a line of output, or a part of one, as a line of JSON. Bytes that
// are no UTF-8 become U+FFFD.
func printLogJSON(w io.Writer, line api.LogLine) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(struct {
		Time   time.Time `json:"time"`
		Stream string    `json:"stream"` // stdout, stderr or console
		Text   string    `json:"text"`
	}{line.Time, line.Stream, string(line.Data)})
}

// A logPrinter writes the lines of one output stream.
type logPrinter struct {
	to     io.Writer
	stamps bool
	within bool // the end of the current line has not been written
}

func (p *logPrinter) print(line api.LogLine) error {
	if len(line.Data) == 0 {
		return nil
	}
	if p.stamps && !p.within {
		const fixed = "2006-01-02T15:04:05.000000000Z07:00" // RFC 3339 with a fixed width
		if _, err := fmt.Fprint(p.to, line.Time.Format(fixed), " "); err != nil {
			return err
		}
	}
	p.within = line.Data[len(line.Data)-1] != '\n'
	_, err := p.to.Write(line.Data)
	return err
}
