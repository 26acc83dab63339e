// Command floor decompresses the layers of one image of an OCI layout to nowhere, in parallel as the
// cores allow, and prints how many bytes came out. It is the time that no converter can beat with the
// same decoders; it neither hashes nor parses.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: floor LAYOUT TAG")
		os.Exit(2)
	}
	n, err := decompress(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
	fmt.Println(n)
}

// descriptor is the part of the OCI one that leads to a blob.
type descriptor struct {
	Digest      string
	Annotations map[string]string
}

func (d descriptor) path(layout string) string {
	return filepath.Join(layout, "blobs", strings.ReplaceAll(d.Digest, ":", "/"))
}

func decompress(layout, tag string) (int64, error) {
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
		return drainAll(layout, manifest.Layers)
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

// drainAll runs one goroutine a processor over the layers.
func drainAll(layout string, layers []descriptor) (int64, error) {
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
				n, err := drain(d.path(layout))
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

func drain(name string) (int64, error) {
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
		if stream, err = gzip.NewReader(in); err != nil {
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
