package tarcopy

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// BenchmarkExtract extracts 2,000 small files into 20 folders. The folder of the last
// file stays open, which helps if the files of a folder follow each other.
func BenchmarkExtract(b *testing.B) {
	const files, folders = 2000, 20
	for _, order := range []struct {
		name   string
		folder func(i int) int
	}{
		{"by-folder", func(i int) int { return i / (files / folders) }},
		{"in-turns", func(i int) int { return i % folders }},
	} {
		var entries []entry
		for i := range files {
			name := fmt.Sprintf("usr/share/doc/package%d/examples/file%d", order.folder(i), i)
			entries = append(entries, entry{name: name, body: strings.Repeat("x", 100)})
		}
		stream := tarOf(b, entries...)
		b.Run(order.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := Extract(b.Context(), bytes.NewReader(stream), b.TempDir(), ExtractOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
