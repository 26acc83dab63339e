package source

import (
	"bytes"
	"io"
	"testing"

	"github.com/banger-vm/banger/internal/kernel/kerneltest"
)

func FuzzArchive(f *testing.F) {
	f.Add([]byte(kerneltest.Deb(f, kerneltest.Control, "gzip", kerneltest.Files(f)[:5]...)))
	f.Add(kerneltest.Ar("debian-binary", "2.0\n", "_odd", "x", "control.tar", string(kerneltest.Tar(f, kerneltest.File{Name: "control", Content: kerneltest.Control})), "data.tar", ""))
	f.Add([]byte("!<arch>\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := readDeb(t.Context(), bytes.NewReader(data), io.Discard)
		if err == nil && (!isPackageName(d.name) || !isPackageVersion(d.version)) {
			t.Errorf("package %q, version %q", d.name, d.version)
		}
		ar := &arReader{r: bytes.NewReader(data)}
		total := 0
		for {
			if _, err := ar.next(); err != nil {
				break
			}
			n, err := io.Copy(io.Discard, ar)
			if total += int(n); err != nil {
				break
			}
		}
		if total > len(data) {
			t.Errorf("%d bytes of members in %d", total, len(data))
		}
	})
}
