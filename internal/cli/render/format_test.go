package render

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/exit"
)

// A machineRow has fields, nested fields and a method, as rows of lists have.
type machineRow struct{ api.Machine }

func (machineRow) Status() string { return "Created" }

func TestFormat(t *testing.T) {
	rows := []machineRow{
		{api.Machine{ID: "0123456789ab", Name: "web", State: api.StateCreated, Command: []string{"sh", "-c", "<x>"}, Config: api.Config{CPUs: 2, Labels: map[string]string{"a": "b"}}}},
		{api.Machine{ID: "ba9876543210", Name: "longer", State: api.StateCreated}},
	}
	for _, row := range []struct{ format, want string }{
		{"{{.Name}}", "web\nlonger\n"},
		{`{{.ID}}\t{{upper .State}}`, "0123456789ab\tCREATED\nba9876543210\tCREATED\n"},
		{"{{truncate .ID 4}} {{.Status}}", "012… Created\nba9… Created\n"},
		{`{{join .Command " "}}`, "sh -c <x>\n\n"},
		{"{{json .Command}}", "[\"sh\",\"-c\",\"<x>\"]\nnull\n"},
		{`table {{.Name}}\t{{lower .State}}`, "NAME     STATE\nweb      created\nlonger   created\n"},
		{`table {{.Config.CPUs}}\t{{index .Config.Labels "a"}}\t{{printf "%d" .ExitCode}}`, "CPUS   LABELS   EXIT CODE\n2      b        0\n0               0\n"},
		{`table {{.Status}}\t{{.Created}}`, "STATUS    CREATED\nCreated   0001-01-01 00:00:00 +0000 UTC\nCreated   0001-01-01 00:00:00 +0000 UTC\n"},
	} {
		t.Run(row.format, func(t *testing.T) {
			f, err := ParseFormat(row.format)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := Rows(&out, f, rows); err != nil {
				t.Fatal(err)
			}
			if out.String() != row.want {
				t.Errorf("got:\n%swant:\n%s", out.String(), row.want)
			}
		})
	}
	f, err := ParseFormat("json")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Rows(&out, f, rows); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(out.String(), "\n"); len(lines) != 3 || !strings.HasPrefix(lines[0], `{"id":"0123456789ab","name":"web",`) {
		t.Errorf("json = %s", out.String())
	}
}

func TestFormatRefuses(t *testing.T) {
	for _, text := range []string{"{{.Name", "{{nothing .Name}}"} {
		if _, err := ParseFormat(text); !isUsage(err) {
			t.Errorf("%s: %v, want a usage error", text, err)
		}
	}
	for _, text := range []string{"{{.Nothing}}", "table {{.Nothing}}", "table {{.Config.Nothing}}"} {
		f, err := ParseFormat(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := Rows(&bytes.Buffer{}, f, []machineRow{{}}); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
	for _, text := range []string{"", "table"} {
		if f, err := ParseFormat(text); f != nil || err != nil {
			t.Errorf("%q: %v, %v, want none", text, f, err)
		}
	}
}

func isUsage(err error) bool {
	_, ok := errors.AsType[*exit.UsageError](err)
	return ok
}
