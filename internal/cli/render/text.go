// Package render writes results and progress: tables, JSON, rows by a
// --format template, sizes and times as words, and progress bars.
package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/docker/go-units"
)

// NewTable returns a writer that aligns the columns of a list, which tabs
// separate. Flush writes the table.
func NewTable(w io.Writer) *tabwriter.Writer {
	const padding = 3 // spaces between two columns
	return tabwriter.NewWriter(w, 0, 0, padding, ' ', 0)
}

// JSON writes v as the result of a command.
func JSON(w io.Writer, v any) error {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(escapeJSON(text.Bytes()))
	return err
}

// Warnings notes each warning on a line.
func Warnings(e *env.Env, warnings []string) {
	for _, w := range warnings {
		e.Note("warning: %s", OneLine(w))
	}
}

// OneLine returns a message on one line and free of control characters. A
// message may join several errors, or quote a server or a tool.
func OneLine(s string) string {
	return env.Clean(strings.ReplaceAll(strings.TrimSpace(s), "\n", "; "))
}

// Truncate returns at most width characters of text. The last one is an
// ellipsis if some are missing.
func Truncate(text string, width int) string {
	runes := []rune(text)
	if width < 1 || len(runes) <= width {
		return text
	}
	return string(runes[:width-1]) + "…"
}

// Wrap breaks text at its spaces into lines of at most width characters. A longer word
// has a line of its own.
func Wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}

// Bytes returns n bytes in the largest unit that fits, such as 1.5GiB.
func Bytes(n int64) string { return units.BytesSize(float64(n)) }

// ShortBytes returns n bytes in the largest unit that fits, with at most three digits, as
// 1.5G.
func ShortBytes(n int64) string {
	const format, base, wide = "%.3g%s", 1024, 1000
	size, units := float64(n), []string{"B", "K", "M", "G", "T", "P", "E"}
	unit := 0
	for size >= wide && unit < len(units)-1 {
		size /= base
		unit++
	}
	return fmt.Sprintf(format, size, units[unit])
}

// Ago returns the age of t in words.
func Ago(t time.Time) string { return Since(t) + " ago" }

// Since returns the time from t until now in words.
func Since(t time.Time) string { return units.HumanDuration(time.Since(t)) }

// DiskUse returns the bytes that a sparse file takes on the host, or 0 if
// the file does not exist.
func DiskUse(path string) int64 {
	const statUnit = 512 // bytes; the unit of st_blocks, stat(2)
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * statUnit
	}
	return info.Size()
}
