package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// walk calls read with each file below folders whose name ends in suffix.
func walk(folders []string, suffix string, read func(path string) error) error {
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && len(d.Name()) > 1 && strings.HasPrefix(d.Name(), "."), d.IsDir() && path == "bin":
				return filepath.SkipDir
			case d.IsDir() || !strings.HasSuffix(path, suffix):
				return nil
			}
			return read(path)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// comments returns the lines of all comments of Go files. Directives are left
// out, and so is this program, which names the words that it counts.
func comments(folders []string) (lines []line, err error) {
	fset := token.NewFileSet()
	err = walk(folders, ".go", func(path string) error {
		if strings.Contains(path, "test/prose/") {
			return nil
		}
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, group := range file.Comments {
			for _, c := range group.List {
				lines = append(lines, commentLines(path, fset.Position(c.Pos()).Line, c)...)
			}
		}
		return nil
	})
	return lines, err
}

func commentLines(path string, number int, c *ast.Comment) (out []line) {
	if strings.HasPrefix(c.Text, "//go:") || strings.HasPrefix(c.Text, "//nolint:") {
		return nil
	}
	for text := range strings.SplitSeq(c.Text, "\n") {
		out = append(out, line{path, number, strings.TrimLeft(text, "/*\t ")})
		number++
	}
	return out
}

// code matches what a document quotes: commands, outputs and names.
var code = regexp.MustCompile("`[^`]*`")

// documents returns the lines of all Markdown files, without code.
func documents(folders []string) (lines []line, err error) {
	err = walk(folders, ".md", func(path string) error {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fenced := false
		for i, text := range strings.Split(string(text), "\n") {
			if strings.HasPrefix(text, "```") {
				fenced = !fenced
			}
			if !fenced && !strings.HasPrefix(text, "    ") {
				lines = append(lines, line{path, i + 1, code.ReplaceAllString(text, "")})
			}
		}
		return nil
	})
	return lines, err
}
