package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"reflect"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"
	"unicode"
)

// formatHelp explains --format.
const formatHelp = "Go template for each one, with json, join, lower, upper and truncate; after the word\ntable, under a heading; or json"

// tablePadding is the space between the columns of a list.
const tablePadding = 3

func newTable(w io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(w, 0, 0, tablePadding, ' ', 0)
}

// A format is what --format asks for.
type format struct {
	json     bool // a line of JSON for each row
	heading  bool
	template *template.Template
}

// parseFormat returns nil for what leaves the choice to the command: nothing,
// and table alone.
func parseFormat(text string) (*format, error) {
	switch text {
	case "", "table":
		return nil, nil //nolint:nilnil // no format, as documented
	case "json":
		return &format{json: true}, nil
	}
	body, heading := strings.CutPrefix(text, "table ")
	// A shell hands these on as they are written.
	body = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(body)
	t, err := template.New("").Option("missingkey=error").Funcs(formatFuncs()).Parse(body)
	if err != nil {
		return nil, usagef("--format: %s", strings.TrimPrefix(err.Error(), "template: "))
	}
	return &format{heading: heading, template: t}, nil
}

func formatFuncs() template.FuncMap {
	return template.FuncMap{
		"json":     compactJSON,
		"join":     func(list []string, with string) string { return strings.Join(list, with) },
		"lower":    func(v any) string { return strings.ToLower(fmt.Sprint(v)) },
		"upper":    func(v any) string { return strings.ToUpper(fmt.Sprint(v)) },
		"truncate": func(v any, width int) string { return truncated(fmt.Sprint(v), width) },
	}
}

func compactJSON(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// truncated is at most width characters of text, the last an ellipsis where
// some are missing.
func truncated(text string, width int) string {
	runes := []rune(text)
	if width < 1 || len(runes) <= width {
		return text
	}
	return string(runes[:width-1]) + "…"
}

// printRows writes each row in the format.
func printRows[T any](w io.Writer, f *format, rows []T) error {
	if f.json {
		for _, row := range rows {
			line, err := compactJSON(row)
			if err != nil {
				return err
			}
			fmt.Fprintln(w, line)
		}
		return nil
	}
	out := w
	if f.heading {
		table := newTable(w)
		defer table.Flush() //nolint:errcheck // as other writes to the output
		out = table
		if err := f.printHeading(out, reflect.TypeFor[T]()); err != nil {
			return err
		}
	}
	for _, row := range rows {
		if err := f.execute(out, f.template, row); err != nil {
			return err
		}
	}
	return nil
}

// execute writes one line, or none.
func (f *format) execute(w io.Writer, t *template.Template, v any) error {
	var line bytes.Buffer
	if err := t.Execute(&line, v); err != nil {
		return fmt.Errorf("--format: %s", strings.TrimPrefix(err.Error(), "template: "))
	}
	_, err := fmt.Fprintln(w, line.String())
	return err
}

// printHeading executes the template on the names of a row's fields, which no
// function changes.
func (f *format) printHeading(w io.Writer, row reflect.Type) error {
	t, err := f.template.Clone()
	if err != nil {
		return err
	}
	same := func(v any, _ ...any) any { return v }
	second := func(_ any, v any, _ ...any) any { return v }
	funcs := template.FuncMap{"index": same, "len": same, "slice": same, "printf": second}
	for name := range formatFuncs() {
		funcs[name] = same
	}
	return f.execute(w, t.Funcs(funcs), headings(row))
}

// headings are the names of a struct's fields and methods by those names,
// nested as they are.
func headings(t reflect.Type) map[string]any {
	out := map[string]any{}
	for field := range fieldsOf(t) {
		kind := field.Type
		switch {
		case field.Anonymous:
			maps.Copy(out, headings(kind))
		case kind.Kind() == reflect.Struct && kind != reflect.TypeFor[time.Time]():
			out[field.Name] = headings(kind)
		default:
			out[field.Name] = heading(field.Name)
		}
	}
	for i := range t.NumMethod() {
		out[t.Method(i).Name] = heading(t.Method(i).Name)
	}
	return out
}

func fieldsOf(t reflect.Type) func(yield func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if !yield(t.Field(i)) {
				return
			}
		}
	}
}

// heading writes ExitCode as EXIT CODE.
func heading(name string) string {
	var out []rune
	lower := false
	for _, r := range name {
		if lower && unicode.IsUpper(r) {
			out = append(out, ' ')
		}
		lower = unicode.IsLower(r)
		out = append(out, unicode.ToUpper(r))
	}
	return string(out)
}
