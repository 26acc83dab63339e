package daemon

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
)

// An operation describes a route in the document. The descriptions of its types come
// from reflection and from the doc comments of package api.
type operation struct {
	pattern, summary string
	query            []parameter
	request, answer  any // values of the types of the bodies; nil for none
	status           string
	stream           string // description of the stream, "" if there is none
	lines            bool   // the answer has a line of JSON for each value
}

type parameter struct{ name, kind, text string }

// operations are the operations of the document. UPDATE=1 go test -run TestOpenAPI
// writes the document again.
var operations = []operation{
	{pattern: "GET /v1/version", summary: "What the daemon is. Answered whatever protocol the sender speaks.", answer: api.Info{}},
	{pattern: "GET /v1/openapi.json", summary: "This document.", answer: map[string]any{}},
	{pattern: "POST /v1/shutdown", summary: "End the daemon. Machines go on. Obeyed whatever protocol the sender speaks.", status: "202"},
	{pattern: "GET /v1/machines", summary: "Machines, newest first.", answer: api.List{}, query: []parameter{
		{"all", "boolean", "also those that do not run"}, {"filter", "array", "KEY=VALUE, see ListRequest; may be given several times"},
	}},
	{pattern: "POST /v1/machines", summary: "Make a machine.", request: api.CreateRequest{}, answer: api.Created{}, status: "201"},
	{pattern: "GET /v1/machines/{ref}", summary: "What is known of a machine.", answer: api.Machine{}},
	{pattern: "DELETE /v1/machines/{ref}", summary: "Remove a machine with its disk.", status: "204", query: []parameter{
		{"force", "boolean", "kill it before, if it runs"},
	}},
	{
		pattern: "POST /v1/machines/{ref}/start", summary: "Boot a machine: answered when it is ready, or watched on a stream.",
		request: api.StartRequest{}, answer: api.Machine{},
		stream: "Events until the machine is ready; with attach, the main command's frames after that.",
	},
	{pattern: "POST /v1/machines/{ref}/stop", summary: "Stop a machine, and wait for its end.", request: api.StopRequest{}, status: "204"},
	{pattern: "POST /v1/machines/{ref}/kill", summary: "Signal a machine's main command, or pull its plug.", request: api.KillRequest{}, status: "204"},
	{pattern: "POST /v1/machines/{ref}/restart", summary: "Stop a machine and boot it.", request: api.StopRequest{}, status: "204"},
	{pattern: "POST /v1/machines/{ref}/rename", summary: "Give a machine another name.", request: api.RenameRequest{}, status: "204"},
	{pattern: "POST /v1/machines/{ref}/wait", summary: "Wait for a machine's end.", answer: api.Exit{}},
	{pattern: "GET /v1/machines/{ref}/stats", summary: "What a running machine uses.", answer: api.Stats{}, lines: true, query: []parameter{
		{"follow", "boolean", "go on every second until the machine ends"},
	}},
	{pattern: "GET /v1/machines/{ref}/logs", summary: "What a machine has written.", answer: api.LogLine{}, lines: true, query: []parameter{
		{"console", "boolean", "the console's, in the place of the main command's output"},
		{"follow", "boolean", "go on until the machine ends"}, {"since", "date-time", "from then on"},
		{"until", "date-time", "up to then"}, {"tail", "integer", "the last lines alone; negative: all"},
	}},
	{pattern: "POST /v1/machines/{ref}/exec", summary: "Run a further command.", request: api.ExecRequest{}, stream: "The command's frames."},
	{pattern: "POST /v1/machines/{ref}/attach", summary: "Connect with the main command.", request: api.AttachRequest{}, stream: "The main command's frames."},
	{pattern: "POST /v1/machines/{ref}/archive", summary: "Copy files as a tar stream.", request: api.ArchiveRequest{}, stream: "Frames with the archive as output or input."},
	{pattern: "POST /v1/machines/{ref}/agent", summary: "Connect to the agent's SSH server.", stream: "Bytes of SSH, without frames."},
	{
		pattern: "POST /v1/run", summary: "Make a machine and boot it. Of one that does not come up nothing is left.",
		request: api.RunRequest{}, stream: "The machine as the first event, then as of start.",
	},
	{pattern: "POST /v1/prune", summary: "Remove machines that do not run.", request: api.PruneRequest{}, answer: api.Pruned{}},
}

// inFrames are values of the types that streams and lines carry.
var inFrames = []any{api.Event{}, api.Exit{}, api.TTY{}, api.Error{}, api.StreamError{}, api.PathStat{}}

const openAPIFile = "../../api/openapi.json"

func TestOpenAPI(t *testing.T) {
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(document(t)); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("UPDATE") == "1" {
		if err := os.WriteFile(openAPIFile, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(openAPIFile)
	if err != nil {
		t.Fatal(err)
	}
	if line, ok := firstDifference(got, want.Bytes()); ok {
		t.Errorf("%s differs from the routes and types, from line %d on; UPDATE=1 go test -run TestOpenAPI ./internal/daemon writes it again", openAPIFile, line)
	}
}

// firstDifference returns the number of the first line in which a and b differ.
func firstDifference(a, b []byte) (line int, differ bool) {
	x, y := strings.Split(string(a), "\n"), strings.Split(string(b), "\n")
	for i := range max(len(x), len(y)) {
		if i >= len(x) || i >= len(y) || x[i] != y[i] {
			return i + 1, true
		}
	}
	return 0, false
}

func TestFirstDifference(t *testing.T) {
	for _, row := range []struct {
		a, b string
		line int
	}{{"a\nb", "a\nb", 0}, {"a\nb", "a\nc", 2}, {"a", "a\nb", 2}, {"", "a", 1}} {
		if line, differ := firstDifference([]byte(row.a), []byte(row.b)); line != row.line || differ != (line > 0) {
			t.Errorf("%q and %q differ in line %d, want %d", row.a, row.b, line, row.line)
		}
	}
}

// TestOpenAPIHasEveryRoute compares the routes of the document with those of the
// daemon.
func TestOpenAPIHasEveryRoute(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(api.OpenAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	var described, routes []string
	for path, methods := range doc.Paths {
		for method := range methods {
			described = append(described, strings.ToUpper(method)+" "+path)
		}
	}
	for _, r := range new(handlers).routes() {
		routes = append(routes, r.pattern)
	}
	slices.Sort(described)
	slices.Sort(routes)
	if !slices.Equal(described, routes) || len(routes) < 20 {
		t.Errorf("the document has\n%s\nthe daemon\n%s", strings.Join(described, "\n"), strings.Join(routes, "\n"))
	}
}

// TestOpenAPITypes compares the schemas of the document with the structs of package
// api that are JSON. A struct that no route uses is a mistake too.
func TestOpenAPITypes(t *testing.T) {
	var doc struct {
		Components struct {
			Schemas map[string]struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal(api.OpenAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	fields := taggedFields(t)
	for name, schema := range doc.Components.Schemas {
		if fields[name] == nil && len(schema.Properties) > 0 {
			t.Errorf("schema %s has no type", name)
		}
	}
	for name, want := range fields {
		var got []string
		for property := range doc.Components.Schemas[name].Properties {
			got = append(got, property)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the document has %v, the type %v", name, got, want)
		}
	}
	if len(fields) < 20 {
		t.Errorf("%d types: the test reads the wrong folder", len(fields))
	}
}

var jsonTag = regexp.MustCompile(`json:"([^",]+)`)

// eachStruct calls do with every exported struct of package api.
func eachStruct(t *testing.T, do func(name string, s *ast.StructType, doc string)) {
	t.Helper()
	files, err := filepath.Glob("../../api/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no sources: %v", err)
	}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range decl.Specs {
				typ, ok := spec.(*ast.TypeSpec)
				if !ok || !typ.Name.IsExported() {
					continue
				}
				if s, ok := typ.Type.(*ast.StructType); ok {
					do(typ.Name.Name, s, plain(decl.Doc))
				}
			}
		}
	}
}

// plain returns the text of a comment on one line.
func plain(g *ast.CommentGroup) string { return strings.Join(strings.Fields(g.Text()), " ") }

// taggedFields returns the JSON names of the fields of each struct in the source of
// package api.
func taggedFields(t *testing.T) map[string][]string {
	out := map[string][]string{}
	eachStruct(t, func(name string, s *ast.StructType, _ string) {
		for _, f := range s.Fields.List {
			if f.Tag == nil {
				continue
			}
			if m := jsonTag.FindStringSubmatch(f.Tag.Value); m != nil {
				out[name] = append(out[name], m[1])
			}
		}
	})
	return out
}

// object is a JSON object in the document.
type object = map[string]any

// A describer makes schemas of types.
type describer struct {
	schemas object
	types   map[string]string            // doc comments by type
	fields  map[string]map[string]string // doc comments by type and JSON name of the field
}

func newDescriber(t *testing.T) *describer {
	d := &describer{schemas: object{}, types: map[string]string{}, fields: map[string]map[string]string{}}
	eachStruct(t, func(name string, s *ast.StructType, doc string) {
		d.types[name], d.fields[name] = doc, map[string]string{}
		for _, f := range s.Fields.List {
			if f.Tag == nil {
				continue
			}
			text := strings.TrimSpace(plain(f.Doc) + " " + plain(f.Comment))
			if m := jsonTag.FindStringSubmatch(f.Tag.Value); m != nil && text != "" {
				d.fields[name][m[1]] = text
			}
		}
	})
	return d
}

// schema returns the schema of a type. It describes a struct and refers to it.
func (d *describer) schema(typ reflect.Type) object {
	switch {
	case typ == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case typ == reflect.TypeFor[[]byte]():
		return object{"type": "string", "contentEncoding": "base64"}
	}
	switch typ.Kind() {
	case reflect.Pointer:
		return d.schema(typ.Elem())
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Int, reflect.Int64, reflect.Uint32:
		return object{"type": "integer"}
	case reflect.Slice:
		return object{"type": "array", "items": d.schema(typ.Elem())}
	case reflect.Map:
		if typ.Elem().Kind() == reflect.Interface {
			return object{"type": "object"}
		}
		return object{"type": "object", "additionalProperties": d.schema(typ.Elem())}
	case reflect.Struct:
		d.describe(typ)
		return object{"$ref": "#/components/schemas/" + typ.Name()}
	default:
		panic("the document cannot have a " + typ.String())
	}
}

// describe adds the schema of a struct, unless there is one.
func (d *describer) describe(typ reflect.Type) {
	if d.schemas[typ.Name()] != nil {
		return
	}
	properties, required := object{}, []string{}
	schema := object{"type": "object", "properties": properties, "description": d.types[typ.Name()]}
	d.schemas[typ.Name()] = schema
	for f := range typ.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			panic("field " + typ.Name() + "." + f.Name + " has no name in JSON")
		}
		property := d.schema(f.Type)
		if text := d.fields[typ.Name()][name]; text != "" {
			property["description"] = text
		}
		properties[name] = property
		if options == "" {
			required = append(required, name)
		}
	}
	// A request has no required fields: each zero value has a meaning.
	if len(required) > 0 && !strings.HasSuffix(typ.Name(), "Request") && typ.Name() != "Config" {
		schema["required"] = required
	}
}

// document returns the whole document.
func document(t *testing.T) object {
	d := newDescriber(t)
	paths := map[string]object{}
	for _, op := range operations {
		method, path, _ := strings.Cut(op.pattern, " ")
		if paths[path] == nil {
			paths[path] = object{}
		}
		paths[path][strings.ToLower(method)] = d.operation(op, path)
	}
	for _, v := range inFrames {
		d.describe(reflect.TypeOf(v))
	}
	return object{
		"openapi": "3.1.0",
		"info": object{
			"title": "banger daemon", "version": "1",
			"description": "Machines of one user, on a Unix socket that this user alone can reach. A request may say in the header " +
				"Banger-Api which version of the protocol it means; every answer says which one the daemon speaks. A request that " +
				"needs a stream sends Connection: Upgrade and Upgrade: " + api.Protocol + ", and has frames after the answer 101: " +
				"a kind (1 byte), the payload's length (4 bytes, big endian) and the payload, as package internal/base/frames has them.",
		},
		"paths": paths, "components": object{"schemas": d.schemas},
	}
}

func (d *describer) operation(op operation, path string) object {
	out := object{"summary": op.summary, "operationId": operationID(op.pattern)}
	var parameters []object
	if strings.Contains(path, "{ref}") {
		parameters = append(parameters, object{
			"name": "ref", "in": "path", "required": true, "schema": object{"type": "string"},
			"description": "a machine's name, its ID, or a prefix of the ID that fits no other",
		})
	}
	for _, p := range op.query {
		schema := object{"type": p.kind}
		switch p.kind {
		case "array":
			schema["items"] = object{"type": "string"}
		case "date-time":
			schema = object{"type": "string", "format": p.kind}
		}
		parameters = append(parameters, object{"name": p.name, "in": "query", "schema": schema, "description": p.text})
	}
	if parameters != nil {
		out["parameters"] = parameters
	}
	if op.request != nil {
		out["requestBody"] = object{"content": object{"application/json": object{"schema": d.schema(reflect.TypeOf(op.request))}}}
	}
	out["responses"] = d.responses(op)
	return out
}

func (d *describer) responses(op operation) object {
	out := object{"default": object{
		"description": "It could not be done.",
		"content":     object{"application/json": object{"schema": d.schema(reflect.TypeFor[api.Error]())}},
	}}
	if op.stream != "" {
		out["101"] = object{"description": op.stream}
		if op.answer == nil {
			return out
		}
	}
	status := op.status
	if status == "" {
		status = "200"
	}
	done := object{"description": "Done."}
	if op.answer != nil {
		media := "application/json"
		if op.lines {
			media = "application/x-ndjson"
			done["description"] = "A line for each value. One that broke off ends with a StreamError."
		}
		done["content"] = object{media: object{"schema": d.schema(reflect.TypeOf(op.answer))}}
	}
	out[status] = done
	return out
}

// operationID returns a name for the operation of a route.
func operationID(pattern string) string {
	method, path, _ := strings.Cut(pattern, " ")
	path = strings.TrimSuffix(strings.ReplaceAll(strings.TrimPrefix(path, "/v1/"), "machines/{ref}", "machine"), ".json")
	return strings.ToLower(method) + "-" + strings.ReplaceAll(path, "/", "-")
}
