package machinecmd

import (
	"bytes"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/exit"
	"github.com/spf13/cobra"
)

func TestParseRestart(t *testing.T) {
	for _, row := range []struct {
		text string
		want api.Restart
	}{
		{"", api.Restart{}}, {"no", api.Restart{}}, {"always", api.Restart{Policy: "always"}},
		{"unless-stopped", api.Restart{Policy: "unless-stopped"}}, {"on-failure", api.Restart{Policy: "on-failure"}},
		{"on-failure:3", api.Restart{Policy: "on-failure", Retries: 3}},
	} {
		if got, err := parseRestart(row.text); err != nil || got != row.want {
			t.Errorf("%q: %+v, %v, want %+v", row.text, got, err, row.want)
		}
	}
	for _, text := range []string{"never", "always:3", "no:1", "on-failure:", "on-failure:-1", "on-failure:x", ":3"} {
		m := machineFlags{pull: "missing", restart: text}
		if got, err := m.config(new(cobra.Command), nil); exit.Code(err) != exit.Usage {
			t.Errorf("%q: %+v, %v, want a usage error", text, got.Restart, err)
		}
	}
}

func TestParseTime(t *testing.T) {
	zone := time.FixedZone("", 2*60*60)
	now := time.Date(2024, 5, 6, 7, 8, 9, 0, zone)
	for _, row := range []struct {
		text string
		want time.Time
	}{
		{"2024-01-02T03:04:05Z", time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)},
		{"2024-01-02T03:04:05.25+01:00", time.Date(2024, 1, 2, 2, 4, 5, 250_000_000, time.UTC)},
		{"2024-01-02T03:04:05.5", time.Date(2024, 1, 2, 3, 4, 5, 500_000_000, zone)},
		{"2024-01-02 03:04:05", time.Date(2024, 1, 2, 3, 4, 5, 0, zone)},
		{"2024-01-02T03:04", time.Date(2024, 1, 2, 3, 4, 0, 0, zone)},
		{"2024-01-02", time.Date(2024, 1, 2, 0, 0, 0, 0, zone)},
		{"1700000000", time.Unix(1700000000, 0)}, {"1700000000.5", time.Unix(1700000000, 500_000_000)},
		{"10m", now.Add(-10 * time.Minute)}, {"1h30m", now.Add(-90 * time.Minute)},
	} {
		if got, err := parseTime(row.text, now); err != nil || !got.Equal(row.want) {
			t.Errorf("%s: %v, %v, want %v", row.text, got, err, row.want)
		}
	}
	for _, text := range []string{"yesterday", "2024-13-01", "1e99", "NaN", "+Inf", "10"[:0]} {
		if got, err := parseTime(text, now); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestMachineRow(t *testing.T) {
	ago := time.Now().Add(-330 * time.Second)
	for _, row := range []struct {
		machine api.Machine
		want    string
	}{
		{api.Machine{State: api.StateCreating}, "Creating"},
		{api.Machine{State: api.StateCreated}, "Created"},
		{api.Machine{State: api.StateRunning, Started: ago}, "Up 5 minutes"},
		{api.Machine{State: api.StateRunning, Started: ago, Paused: "host disk full"}, "Up 5 minutes, paused (host disk full)"},
		{api.Machine{State: api.StateExited, ExitCode: 3, Finished: ago}, "Exited (3) 5 minutes ago"},
		{api.Machine{State: api.StateExited, ExitCode: 3}, "Exited (3)"},
	} {
		if got := (machineRow{row.machine}).Status(); got != row.want {
			t.Errorf("status of %+v is %q, want %q", row.machine, got, row.want)
		}
	}
	labels := machineRow{api.Machine{Config: api.Config{Labels: map[string]string{"tier": "web", "app": ""}}}}.Labels()
	if want := "app=,tier=web"; labels != want {
		t.Errorf("labels %q, want %q", labels, want)
	}
}

// TestLogPrinter checks that a line in several parts gets one time.
func TestLogPrinter(t *testing.T) {
	var out bytes.Buffer
	p := &logPrinter{to: &out, stamps: true}
	at := time.Date(2024, 1, 2, 3, 4, 5, 6, time.UTC)
	for i, data := range []string{"one\n", "tw", "", "o\n", "three"} {
		if err := p.print(api.LogLine{Time: at.Add(time.Duration(i) * time.Second), Data: []byte(data)}); err != nil {
			t.Fatal(err)
		}
	}
	want := "2024-01-02T03:04:05.000000006Z one\n2024-01-02T03:04:06.000000006Z two\n2024-01-02T03:04:09.000000006Z three"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestSampler(t *testing.T) {
	s := &sampler{last: map[string]api.Stats{}}
	at := time.Unix(1000, 0)
	for _, row := range []struct {
		name string
		now  api.Stats
		want float64
	}{
		{"the first", api.Stats{ID: "a", Time: at, CPU: 5}, 0},
		{"half a processor", api.Stats{ID: "a", Time: at.Add(2 * time.Second), CPU: 6}, 50},
		{"of another machine", api.Stats{ID: "b", Time: at.Add(2 * time.Second), CPU: 90}, 0},
		{"two processors", api.Stats{ID: "a", Time: at.Add(3 * time.Second), CPU: 8}, 200},
		{"started again", api.Stats{ID: "a", Time: at.Add(4 * time.Second), CPU: 1}, 0},
		{"at the same time", api.Stats{ID: "a", Time: at.Add(4 * time.Second), CPU: 2}, 0},
	} {
		if got := s.compare(row.now).CPUPercent; got != row.want {
			t.Errorf("%s: %v %%, want %v", row.name, got, row.want)
		}
	}
	if got := (statsRow{Stats: api.Stats{Memory: 1, Limit: 4}}).MemoryPercent(); got != 25 {
		t.Errorf("memory %v %%, want 25", got)
	}
	if got := (statsRow{}).MemoryPercent(); got != 0 {
		t.Errorf("memory of nothing %v %%", got)
	}
}
