// Command floor decompresses the layers of an image in an OCI layout, one layer a core at a time, drops
// the output and prints its number of bytes. It uses banger's decoders and does not hash or parse the
// output, so no converter with the same decoders is faster. With -common it uses the gzip decoder of
// github.com/klauspost/compress, which many Go programs use.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/banger-vm/banger/internal/image/gunzip"
)

func main() {
	common := flag.Bool("common", false, "decompress gzip with klauspost/compress")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: floor [-common] LAYOUT TAG")
		os.Exit(2)
	}
	openGzip := openOurs
	if *common {
		openGzip = openCommon
	}
	n, err := decompress(flag.Arg(0), flag.Arg(1), openGzip)
	if err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
	fmt.Println(n)
}

func openOurs(r io.Reader) (io.Reader, error) { return gunzip.NewReader(r), nil }

func openCommon(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }

// A descriptor has the fields of an OCI descriptor that lead to a blob.
type descriptor struct {
	Digest      string
	Annotations map[string]string
}

func (d descriptor) path(layout string) string {
	return filepath.Join(layout, "blobs", strings.ReplaceAll(d.Digest, ":", "/"))
}

func decompress(layout, tag string, openGzip func(io.Reader) (io.Reader, error)) (int64, error) {
	var index struct{ Manifests []descriptor }
	if err := readJSON(filepath.Join(layout, "index.json"), &index); err != nil {
		return 0, err
	}
	for _, d := range index.Manifests {
		if d.Annotations["org.opencontainers.image.ref.name"] != tag {
			continue
		}
		var manifest struct{ Layers []descriptor }
		if err := readJSON(d.path(layout), &manifest); err != nil {
			return 0, err
		}
		return drainAll(layout, manifest.Layers, openGzip)
	}
	return 0, fmt.Errorf("%s has no tag %s", layout, tag)
}

func readJSON(name string, into any) error {
	body, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, into)
}

// drainAll decompresses the layers, with one goroutine for each processor.
func drainAll(layout string, layers []descriptor, openGzip func(io.Reader) (io.Reader, error)) (int64, error) {
	jobs := make(chan descriptor, len(layers))
	for _, d := range layers {
		jobs <- d
	}
	close(jobs)
	var (
		wg    sync.WaitGroup
		lock  sync.Mutex
		total int64
		errs  []error
	)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for d := range jobs {
				n, err := drain(d.path(layout), openGzip)
				lock.Lock()
				total += n
				errs = append(errs, err)
				lock.Unlock()
			}
		})
	}
	wg.Wait()
	return total, errors.Join(errs...)
}

func drain(name string, openGzip func(io.Reader) (io.Reader, error)) (int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 1<<20)
	magic, err := in.Peek(4)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	var stream io.Reader = in
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		if stream, err = openGzip(in); err != nil {
			return 0, fmt.Errorf("read %s: %w", name, err)
		}
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		decoder, err := zstd.NewReader(in)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", name, err)
		}
		defer decoder.Close()
		stream = decoder
	}
	n, err := io.Copy(io.Discard, stream)
	if err != nil {
		return n, fmt.Errorf("decompress %s: %w", name, err)
	}
	return n, nil
}
