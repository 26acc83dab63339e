// Command maketar writes a plain tar of small files to standard output, spread evenly over directories.
// Such trees have many inodes and few bytes.
package main

import (
	"archive/tar"
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"
)

func main() {
	files := flag.Int("files", 120_000, "number of files")
	dirs := flag.Int("dirs", 1, "number of directories they are in")
	size := flag.Int("size", 64, "bytes of a file")
	flag.Parse()
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	if err := errors.Join(write(out, *files, *dirs, *size), out.Flush()); err != nil {
		fmt.Fprintln(os.Stderr, "maketar:", err)
		os.Exit(1)
	}
}

func write(out io.Writer, files, dirs, size int) error {
	w := tar.NewWriter(out)
	stamp := time.Unix(1_700_000_000, 0)
	body := make([]byte, size)
	for d := range dirs {
		dir := fmt.Sprintf("dir-%04d/", d)
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: stamp}); err != nil {
			return err
		}
		for i := d; i < files; i += dirs {
			for n := range body {
				body[n] = byte(i + n + 1)
			}
			h := &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%sfile-%07d", dir, i), Mode: 0o644, Size: int64(size), ModTime: stamp}
			if err := w.WriteHeader(h); err != nil {
				return err
			}
			if _, err := w.Write(body); err != nil {
				return err
			}
		}
	}
	return w.Close()
}
