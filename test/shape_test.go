package e2e

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The limits of the source's shape. A figure above its limit fails the test.
const (
	maxTopPackages  = 9  // folders directly below internal/
	maxMethods      = 30 // methods of one receiver type
	maxDirectives   = 59 // lint directives in all Go files, tests included
	maxMedianLength = 11 // lines of a function, from its signature to its closing brace
	maxP90Length    = 28 // lines that 90 % of the functions do not exceed
)

// A shape has the figures of a source tree. Files of tests count in directives alone.
type shape struct {
	topPackages []string       // folders directly below internal/
	methods     map[string]int // by folder and receiver type, "internal/cli.app"
	directives  int
	lengths     []int // of the functions, in ascending order
}

// TestShape holds the project's source against the limits.
func TestShape(t *testing.T) {
	s, err := measureShape(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.lengths) < 1000 || len(s.methods) < 50 || len(s.topPackages) < 2 {
		t.Fatalf("%d functions, %d receiver types, %d folders: the test reads the wrong tree",
			len(s.lengths), len(s.methods), len(s.topPackages))
	}
	widest, methods := s.widest()
	t.Logf("packages directly below internal/: %d (limit %d): %s", len(s.topPackages), maxTopPackages, strings.Join(s.topPackages, " "))
	t.Logf("methods on one receiver type: %d of %s (limit %d)", methods, widest, maxMethods)
	t.Logf("lint directives: %d (limit %d)", s.directives, maxDirectives)
	t.Logf("lines of a function: median %d (limit %d), 90th percentile %d (limit %d), of %d functions",
		s.percentile(50), maxMedianLength, s.percentile(90), maxP90Length, len(s.lengths))
	for _, fault := range s.faults() {
		t.Error(fault)
	}
}

// TestShapeCanFail measures a tree that exceeds every limit, and one that reaches every limit and exceeds none.
func TestShapeCanFail(t *testing.T) {
	for _, row := range []struct {
		name  string
		extra int // above the limit
		want  []string
	}{
		{"at the limits", 0, nil},
		{"above the limits", 1, []string{
			"10 packages directly below internal/", "wide.T has 31 methods", "60 lint directives",
			"a median of 12 lines", "a 90th percentile of 29 lines",
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			writeShape(t, dir, row.extra)
			s, err := measureShape(os.DirFS(dir))
			if err != nil {
				t.Fatal(err)
			}
			got := s.faults()
			if len(got) != len(row.want) {
				t.Fatalf("faults %q, want %d", got, len(row.want))
			}
			for i, want := range row.want {
				if !strings.Contains(got[i], want) {
					t.Errorf("fault %q, want one with %q", got[i], want)
				}
			}
		})
	}
}

// TestShapeCountsSource checks that the figures count Go source, and nothing else.
func TestShapeCountsSource(t *testing.T) {
	dir := t.TempDir()
	const directive = "//no" + "lint:" // not a directive of this file
	writeTree(t, dir, map[string]string{
		"internal/a/a.go": "package a\n\ntype T[P any] struct{}\n\nfunc (T[P]) M() {\n\t_ = `" + directive + "`\n}\n\nfunc (*T[P]) N() {}\n" +
			"\nvar V = 1 " + directive + "x // why\n",
		"internal/a/a_test.go":     "package a\n\nfunc (T[P]) Test() {}\n\nvar W = 1 " + directive + "x // why\n",
		"internal/a/testdata/b.go": "not Go",
		"internal/README":          "not a folder",
		"internal/docs/README":     "a folder without Go",
		"api/a.go":                 "package api\n\nfunc F() {\n}\n",
	})
	s, err := measureShape(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"a"}; !slices.Equal(s.topPackages, want) {
		t.Errorf("packages %q, want %q", s.topPackages, want)
	}
	if got := s.methods["internal/a.T"]; got != 2 {
		t.Errorf("%d methods, want 2: %v", got, s.methods)
	}
	if s.directives != 2 {
		t.Errorf("%d directives, want 2", s.directives)
	}
	if want := []int{1, 2, 3}; !slices.Equal(s.lengths, want) {
		t.Errorf("lengths %d, want %d", s.lengths, want)
	}
}

func TestShapeReportsAFileThatIsNotGo(t *testing.T) {
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"internal/a/a.go": "not Go"})
	if _, err := measureShape(os.DirFS(dir)); err == nil {
		t.Error("a file that does not parse was measured")
	}
}

// writeShape writes a tree each figure of which is its limit plus extra. Of its 100 functions 50 are below the
// median, 40 at it, and 10 at the 90th percentile.
func writeShape(t *testing.T, dir string, extra int) {
	t.Helper()
	var wide strings.Builder
	wide.WriteString("package wide\n\ntype T struct{}\n")
	methods := maxMethods + extra
	for i := range 100 {
		lines := 2
		switch {
		case i >= 89:
			lines = maxP90Length + extra
		case i >= 49:
			lines = maxMedianLength + extra
		}
		receiver := ""
		if i < methods {
			receiver = "(T) "
		}
		fmt.Fprintf(&wide, "\nfunc %sF%d() {%s}\n", receiver, i, strings.Repeat("\n", lines-1))
	}
	files := map[string]string{"internal/wide/wide.go": wide.String()}
	for i := range maxTopPackages + extra - 1 {
		files[fmt.Sprintf("internal/p%d/p.go", i)] = "package p\n"
	}
	files["api/a_test.go"] = "package api\n" + strings.Repeat("\nvar _ = 1 //no"+"lint:x // why\n", maxDirectives+extra)
	writeTree(t, dir, files)
}

func writeTree(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

// measureShape reads the Go files of a tree.
func measureShape(tree fs.FS) (*shape, error) {
	s := &shape{methods: map[string]int{}}
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && name != "."):
			return fs.SkipDir
		case !d.IsDir() && filepath.Ext(name) == ".go":
			return s.addFile(tree, name)
		}
		return nil
	})
	slices.Sort(s.lengths)
	slices.Sort(s.topPackages)
	return s, err
}

func (s *shape) addFile(tree fs.FS, name string) error {
	source, err := fs.ReadFile(tree, name)
	if err != nil {
		return err
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	for _, group := range file.Comments {
		for _, c := range group.List {
			if strings.HasPrefix(c.Text, "//no"+"lint") {
				s.directives++
			}
		}
	}
	if strings.HasSuffix(name, "_test.go") {
		return nil
	}
	if rest, ok := strings.CutPrefix(name, "internal/"); ok {
		if top, _, below := strings.Cut(rest, "/"); below && !slices.Contains(s.topPackages, top) {
			s.topPackages = append(s.topPackages, top)
		}
	}
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok {
			s.addFunction(f, files, filepath.Dir(name))
		}
	}
	return nil
}

func (s *shape) addFunction(f *ast.FuncDecl, files *token.FileSet, folder string) {
	s.lengths = append(s.lengths, files.Position(f.End()).Line-files.Position(f.Pos()).Line+1)
	if f.Recv != nil {
		s.methods[folder+"."+typeName(f.Recv.List[0].Type)]++
	}
}

// typeName returns the name of a receiver's type without its star and its type parameters.
func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return typeName(e.X)
	case *ast.ParenExpr:
		return typeName(e.X)
	case *ast.IndexExpr:
		return typeName(e.X)
	case *ast.IndexListExpr:
		return typeName(e.X)
	case *ast.Ident:
		return e.Name
	}
	return "?"
}

// widest returns the receiver type with the most methods; of several the first by name.
func (s *shape) widest() (name string, methods int) {
	for n, count := range s.methods {
		if count > methods || count == methods && n < name {
			name, methods = n, count
		}
	}
	return name, methods
}

// percentile returns the smallest length that p percent of the functions do not exceed.
func (s *shape) percentile(p int) int {
	if len(s.lengths) == 0 {
		return 0
	}
	return s.lengths[(len(s.lengths)*p+99)/100-1]
}

// faults returns a line for each figure above its limit.
func (s *shape) faults() []string {
	var out []string
	check := func(got, limit int, format string, args ...any) {
		if got > limit {
			out = append(out, fmt.Sprintf(format, args...)+fmt.Sprintf(", limit %d", limit))
		}
	}
	widest, methods := s.widest()
	median, p90 := s.percentile(50), s.percentile(90)
	check(len(s.topPackages), maxTopPackages, "%d packages directly below internal/", len(s.topPackages))
	check(methods, maxMethods, "%s has %d methods", widest, methods)
	check(s.directives, maxDirectives, "%d lint directives", s.directives)
	check(median, maxMedianLength, "functions have a median of %d lines", median)
	check(p90, maxP90Length, "functions have a 90th percentile of %d lines", p90)
	return out
}
