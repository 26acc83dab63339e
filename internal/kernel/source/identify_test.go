package source

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/kernel/kerneltest"
)

func TestHostileBzImages(t *testing.T) {
	le := binary.LittleEndian
	change := func(do func([]byte)) []byte {
		data := kerneltest.BzImage(kerneltest.Release, kerneltest.Payload(t, "gzip", kerneltest.VMLinux(kerneltest.Release, true)))
		do(data)
		return data
	}
	for name, row := range map[string]struct {
		data []byte
		want string
	}{
		"short":                        {make([]byte, 100), "neither"},
		"no magic":                     {change(func(b []byte) { b[0x202] = 'X' }), "neither"},
		"old protocol":                 {change(func(b []byte) { le.PutUint16(b[0x206:], 0x0204) }), "too old"},
		"32 bits":                      {change(func(b []byte) { b[0x236] = 0 }), "32 bits"},
		"version outside":              {change(func(b []byte) { le.PutUint16(b[0x20e:], 0xffff) }), "outside the header"},
		"no version":                   {change(func(b []byte) { le.PutUint16(b[0x20e:], 0) }), "release"},
		"payload outside":              {change(func(b []byte) { le.PutUint32(b[0x248:], 0xffffffff) }), "outside the file"},
		"payload longer than the file": {change(func(b []byte) { le.PutUint32(b[0x24c:], 0xffffffff) }), "outside the file"},
		"no payload":                   {change(func(b []byte) { le.PutUint32(b[0x24c:], 0) }), "outside the file"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := extractVMLinux(t.Context(), row.data); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error is %v, want %q", err, row.want)
			}
		})
	}
	for _, format := range []string{"none", "gzip", "lz4", "xz", "zstd"} {
		want := kerneltest.VMLinux(kerneltest.Release, true)
		got, err := extractVMLinux(t.Context(), kerneltest.BzImage(kerneltest.Release, kerneltest.Payload(t, format, want)))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", format, len(got), err)
		}
	}
}

func FuzzKernel(f *testing.F) {
	f.Add(kerneltest.BzImage(kerneltest.Release, kerneltest.Payload(f, "gzip", kerneltest.VMLinux(kerneltest.Release, true))))
	f.Add(kerneltest.BzImage(kerneltest.Release, kerneltest.Payload(f, "lz4", kerneltest.VMLinux(kerneltest.Release, true))))
	f.Add(kerneltest.VMLinux(kerneltest.Release, true))
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := identify(data)
		if err == nil && !kernel.IsRelease(info.release) {
			t.Errorf("release %q", info.release)
		}
		if out, err := extractVMLinux(t.Context(), data); err == nil {
			embeddedConfig(t.Context(), out)
		}
	})
}
