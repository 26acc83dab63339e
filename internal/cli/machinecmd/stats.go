package machinecmd

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/attach"
	"github.com/banger-vm/banger/internal/cli/connect"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/render"
	"github.com/spf13/cobra"
)

// statsInterval is the time between two samples, as docker has it.
const statsInterval = time.Second

// A statsRow is a sample of a machine, with the values that need two samples.
type statsRow struct {
	api.Stats
	CPUPercent float64 `json:"cpuPercent"` // of one processor of the host, since the previous sample
}

// MemoryPercent returns the share of its memory that the guest uses.
func (s statsRow) MemoryPercent() float64 {
	const percent = 100
	if s.Limit == 0 {
		return 0
	}
	return percent * float64(s.Memory) / float64(s.Limit)
}

func statsCommand(e *env.Env) *cobra.Command {
	var once bool
	var text string
	cmd := &cobra.Command{
		Use: "stats [MACHINE…]", Short: "Show what machines use, once a second",
		Example: `  banger stats
  banger stats --no-stream web`,
		Long: "Show what machines use of the host, once a second: all that run where none is\n" +
			"named. CPU is in percent of one of the host's processors, RSS what the machine's\n" +
			"process has of the host's memory, READ and WRITE what it has moved to and from storage.",
		ValidArgsFunction: machineNames(e),
	}
	cmd.Flags().BoolVar(&once, "no-stream", false, "show it once")
	cmd.Flags().StringVar(&text, "format", "", render.FormatHelp)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f, err := render.ParseFormat(text)
		if err != nil {
			return err
		}
		daemon, err := connect.Daemon(cmd.Context(), e)
		if err != nil {
			return err
		}
		s := &sampler{daemon: daemon, refs: args, last: map[string]api.Stats{}}
		return stats(cmd.Context(), e, s, f, once)
	}
	return cmd
}

// stats shows samples until ctx ends, which is no error unless once is set: the
// user leaves with Ctrl-C.
func stats(ctx context.Context, e *env.Env, s *sampler, f *render.Format, once bool) error {
	if _, err := s.sample(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(statsInterval)
	defer tick.Stop()
	_, onTerminal := env.Terminal(e.Out)
	onTerminal = onTerminal && !once && f == nil && !e.JSON
	for {
		select {
		case <-ctx.Done():
			if once {
				return ctx.Err()
			}
			return nil
		case <-tick.C:
		}
		rows, err := s.sample(ctx)
		if err == nil {
			err = printStats(e, rows, f, onTerminal)
		}
		switch {
		case ctx.Err() != nil && !once:
			return nil
		case err != nil || once:
			return err
		}
	}
}

func printStats(e *env.Env, rows []statsRow, f *render.Format, onTerminal bool) error {
	switch {
	case f != nil:
		return render.Rows(e.Out, f, rows)
	case e.JSON:
		return render.JSON(e.Out, rows)
	}
	var text bytes.Buffer
	w := render.NewTable(&text)
	fmt.Fprintln(w, "NAME\tCPU %\tMEMORY / LIMIT\tRSS\tREAD / WRITE\tDISK\tUPTIME")
	for _, s := range rows {
		render.Row(w, "%s\t%.1f\t%s / %s\t%s\t%s / %s\t%s\t%s", render.Truncate(s.Name, widestName), s.CPUPercent,
			render.ShortBytes(s.Memory), render.ShortBytes(s.Limit), render.ShortBytes(s.RSS),
			render.ShortBytes(s.Read), render.ShortBytes(s.Write), render.ShortBytes(s.Disk), uptime(s.Uptime))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	shown := text.String()
	if onTerminal {
		// Write over the previous table from the top left corner, and clear the rest
		// of each line and of the screen. Clearing the screen first would flicker.
		shown = "\x1b[H" + strings.ReplaceAll(shown, "\n", "\x1b[K\n") + "\x1b[J"
	}
	_, err := fmt.Fprint(e.Out, shown)
	return err
}

// widestName is the number of characters of a machine's name that leave the other
// columns within 80; a made-up name is no longer.
const widestName = 16

// uptime returns seconds in words of at most two units.
func uptime(seconds float64) string {
	t := time.Duration(seconds * float64(time.Second)).Round(time.Second)
	const day = 24 * time.Hour
	switch {
	case t >= day:
		return fmt.Sprintf("%dd%dh", t/day, t%day/time.Hour)
	case t >= time.Hour:
		return fmt.Sprintf("%dh%dm", t/time.Hour, t%time.Hour/time.Minute)
	}
	return t.String()
}

// A sampler requests samples of machines and remembers the last one of each.
type sampler struct {
	daemon *api.Client
	refs   []string // if empty, all machines that run
	last   map[string]api.Stats
}

func (s *sampler) sample(ctx context.Context) ([]statsRow, error) {
	refs := s.refs
	if len(refs) == 0 {
		list, err := s.daemon.List(ctx, api.ListRequest{})
		if err != nil {
			return nil, err
		}
		for _, m := range list.Machines {
			refs = append(refs, m.ID)
		}
	}
	rows := []statsRow{}
	for _, ref := range refs {
		err := s.daemon.Stats(ctx, ref, false, func(now api.Stats) error {
			rows = append(rows, s.compare(now))
			return nil
		})
		switch {
		case err == nil:
		case len(s.refs) == 0 && attach.HasEnded(err): // after the list was made
		default:
			return nil, err
		}
	}
	return rows, nil
}

// compare returns the row of a sample, and makes it the last one.
func (s *sampler) compare(now api.Stats) statsRow {
	const percent = 100
	row := statsRow{Stats: now}
	before, ok := s.last[now.ID]
	if passed := now.Time.Sub(before.Time).Seconds(); ok && passed > 0 && now.CPU >= before.CPU {
		row.CPUPercent = percent * (now.CPU - before.CPU) / passed
	}
	s.last[now.ID] = now
	return row
}
