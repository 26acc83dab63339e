package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const plain = "// Open returns the file. If there is none, it returns an error.\n"

// write makes a folder with a Go file and a Markdown file.
func write(t *testing.T, comment, document string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"a.go": comment + "package a\n", "a.md": document} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestFaults checks that each rule finds its words, in comments and in documents.
func TestFaults(t *testing.T) {
	for _, row := range []struct{ name, text, want string }{
		{"plain words", "Open returns the file. If there is none, it returns an error.", ""},
		{"a free relative", "Open returns what is there.", "free relatives"},
		{"whatever", "Open returns whatever is there.", "free relatives"},
		{"told", "The caller is told of it.", "told/tells/says"},
		{"nobody", "The file that nobody has.", "nobody/whoever"},
		{"those who", "Those who wait get an error.", "nobody/whoever"},
		{"no if at all", strings.Repeat("one word after the other ", minWords/5), `"if"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := write(t, "// "+row.text+"\n", row.text+"\n")
			for _, read := range []func([]string) ([]line, error){comments, documents} {
				lines, err := read([]string{dir})
				if err != nil || len(lines) == 0 {
					t.Fatalf("lines = %v, %v", lines, err)
				}
				got := strings.Join(count(lines).faults(), "; ")
				if (row.want == "") != (got == "") || !strings.Contains(got, row.want) {
					t.Errorf("faults = %q, want %q", got, row.want)
				}
			}
		})
	}
}

// TestCodeDoesNotCount checks that code, directives and quoted code are left out.
func TestCodeDoesNotCount(t *testing.T) {
	dir := write(t, plain+"//go:generate what is told\n", "Text.\n\n    what is told\n\n```\nwhat is told\n```\n\n`what`\n")
	for _, read := range []func([]string) ([]line, error){comments, documents} {
		lines, err := read([]string{dir})
		if err != nil {
			t.Fatal(err)
		}
		if r := count(lines); r.words == 0 || len(r.places) > 0 {
			t.Errorf("%d words, places %q", r.words, r.places)
		}
	}
}
