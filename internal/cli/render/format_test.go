package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode"

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

// TestFormatCleans checks that rows, tables and JSON have no control characters of an
// image or a guest, and keep those of the user's template.
func TestFormatCleans(t *testing.T) {
	const evil = "a\x1b[2J\x07\nb\tc\u009b1m\x7f\x9b"
	const clean = "a [2J  b c 1m \ufffd"
	m := machineRow{api.Machine{Name: evil, Error: evil, Command: []string{evil, "x"}, State: api.State(evil),
		Config: api.Config{Labels: map[string]string{"a": evil}}}}
	for _, row := range []struct{ format, want string }{
		{"{{.Name}}", clean}, {"{{.State}}", clean}, {`{{.Name}}\t{{.Error}}\n`, clean + "\t" + clean + "\n"},
		{"{{if .Name}}{{.Name}}{{else}}{{.ID}}{{end}}", clean}, {"{{with .Name}}{{.}}{{end}}", clean},
		{"{{with $x := .Name}}{{$x}}{{end}}", clean}, {"{{$x := .Name}}{{$x}}", clean},
		{`{{range .Command}}{{println .}}{{end}}`, clean + "\nx\n"}, {`{{range .Command}}{{.}}{{"\t"}}{{end}}`, clean + "\tx\t"},
		{`{{join .Command "\t"}}`, clean + "\tx"}, {`{{printf "%s\t" .Name}}`, clean + "\t"}, {`{{printf "%-3s|%03d" "x" .ExitCode}}`, "x  |000"},
		{`{{index .Config.Labels "a"}}`, clean}, {"{{.Config.Labels}}", "map[a:" + clean + "]"}, {"{{upper .Name}}", strings.ToUpper(clean)},
		{`{{define "n"}}{{.Name}}{{end}}{{template "n" .}}`, clean}, {"\x1b[1m{{.ExitCode}}", "\x1b[1m0"},
		{"{{json .Name}}", `"a\u001b[2J\u0007\nb\tc\u009b1m\u007f\ufffd"`}, {`table {{.Name}}\t{{.ID}}`, "NAME              ID\n" + clean + "   "},
	} {
		f, err := ParseFormat(row.format)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := Rows(&out, f, []machineRow{m}); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSuffix(out.String(), "\n"); got != row.want {
			t.Errorf("%s:\n got %q\nwant %q", row.format, got, row.want)
		}
	}
	var out bytes.Buffer
	if err := JSON(&out, m); err != nil {
		t.Fatal(err)
	}
	var back machineRow
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back.Name != strings.ToValidUTF8(evil, "\ufffd") {
		t.Errorf("JSON: %q, %v", back.Name, err)
	}
	table := NewTable(&out)
	Row(table, "%s\t%s\t%d", m.Name, m.State, 7)
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsFunc(strings.ReplaceAll(out.String(), "\n", ""), unicode.IsControl) {
		t.Errorf("control characters in %q", out.String())
	}
	if !strings.HasSuffix(out.String(), clean+"   "+clean+"   7\n") {
		t.Errorf("row %q", out.String())
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
