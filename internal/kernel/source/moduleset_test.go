package source

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/kernel/kerneltest"
)

func TestManyLargeModinfo(t *testing.T) {
	mods := "./lib/modules/" + kerneltest.Release + "/"
	tree := kerneltest.Files(t)
	big := string(kerneltest.Compress(t, "zstd", kerneltest.Module(slices.Repeat([]string{"alias=" + strings.Repeat("a", 1000)}, 3000)...)))
	for i := range maxModinfo/3000_000 + 1 {
		tree = append(tree, kerneltest.File{Name: fmt.Sprintf("%sbig%d.ko.zst", mods, i), Content: big})
	}
	_, _, err := Pull(t.Context(), openStore(t).Store, "deb:"+kerneltest.WriteFile(t, "x.deb", kerneltest.Deb(t, kerneltest.Control, "gzip", tree...)), "", Options{})
	if e, ok := errors.AsType[*LimitError](err); !ok || !strings.Contains(e.Unit, ".modinfo") {
		t.Errorf("got %v", err)
	}
}

func TestModuleSetInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	set := &moduleSet{release: kerneltest.Release, files: []moduleFile{{path: "x", data: []byte("x")}}}
	if err := set.writeTar(ctx, tar.NewWriter(io.Discard)); !errors.Is(err, context.Canceled) {
		t.Errorf("write modules: %v", err)
	}
	if err := set.addIndex(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("index modules: %v", err)
	}
}

func FuzzModinfo(f *testing.F) {
	f.Add(kerneltest.Module("name=a", "depends=b,c", "softdep=pre: d post: e", "alias=x*"))
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := parseModinfo(data)
		if err != nil {
			return
		}
		for _, d := range info.depends {
			if d == "" || strings.ContainsAny(d, "-,\x00") {
				t.Errorf("dependency %q", d)
			}
		}
	})
}
