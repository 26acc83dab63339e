package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"text/template"
	"time"
	"unicode"

	"github.com/banger-vm/banger/internal/cli/exit"
)

// FormatHelp is the help text of --format.
const FormatHelp = "Go template for each one, with json, join, lower, upper and truncate; after the word\ntable, under a heading; or json"

// A Format writes rows as --format asks for.
type Format struct {
	json     bool // a line of JSON for each row
	heading  bool
	template *template.Template
}

// ParseFormat parses the value of --format. It returns nil if the command shall
// use its own form: for "" and for "table" alone.
func ParseFormat(text string) (*Format, error) {
	switch text {
	case "", "table":
		return nil, nil
	case "json":
		return &Format{json: true}, nil
	}
	body, heading := strings.CutPrefix(text, "table ")
	// A shell passes \t and \n on as two characters.
	body = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(body)
	t, err := template.New("").Option("missingkey=error").Funcs(formatFuncs()).Funcs(cleanFuncs()).Parse(body)
	if err != nil {
		return nil, exit.Usagef("--format: %s", strings.TrimPrefix(err.Error(), "template: "))
	}
	cleanPipelines(t)
	return &Format{heading: heading, template: t}, nil
}

func formatFuncs() template.FuncMap {
	return template.FuncMap{
		"json":     compactJSON,
		"lower":    func(v any) string { return strings.ToLower(fmt.Sprint(v)) },
		"upper":    func(v any) string { return strings.ToUpper(fmt.Sprint(v)) },
		"truncate": func(v any, width int) string { return Truncate(fmt.Sprint(v), width) },
	}
}

func compactJSON(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return strings.TrimSuffix(string(escapeJSON(b.Bytes())), "\n"), err
}

// Rows writes each row in the format f.
func Rows[T any](w io.Writer, f *Format, rows []T) error {
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
		table := NewTable(w)
		defer func() { _ = table.Flush() }() // as with Fprintln, an error of the output is not reported
		out = table
		if err := f.printHeading(out, reflect.TypeFor[T]()); err != nil {
			return err
		}
	}
	for _, row := range rows {
		if err := f.execute(out, f.template, row, reflect.TypeFor[T]()); err != nil {
			return err
		}
	}
	return nil
}

// execute writes the line of one row, or nothing if the template fails. The error lists
// the fields of row.
func (f *Format) execute(w io.Writer, t *template.Template, v any, row reflect.Type) error {
	var line bytes.Buffer
	if err := t.Execute(&line, v); err != nil {
		return fmt.Errorf("--format: %s; the fields are %s", strings.TrimPrefix(err.Error(), "template: "), fieldList(row))
	}
	_, err := fmt.Fprintln(w, line.String())
	return err
}

// fieldList returns the names that a template may use for a row, sorted. The fields of
// a struct follow its name in braces.
func fieldList(row reflect.Type) string {
	if row.Kind() != reflect.Struct {
		return "those of " + row.String()
	}
	return strings.Join(fieldNames(headings(row)), ", ")
}

func fieldNames(fields map[string]any) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if inner, ok := fields[name].(map[string]any); ok {
			name += ".{" + strings.Join(fieldNames(inner), ", ") + "}"
		}
		names = append(names, name)
	}
	return names
}

// printHeading executes the template on the names of a row's fields in place of
// their values. The functions of the template return a name unchanged.
func (f *Format) printHeading(w io.Writer, row reflect.Type) error {
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
	funcs["join"] = same
	return f.execute(w, t.Funcs(funcs), headings(row), row)
}

// headings returns the headings of a struct's fields and methods by their names.
// A field that is a struct has a map of its own.
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

// heading returns EXIT CODE for ExitCode.
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
