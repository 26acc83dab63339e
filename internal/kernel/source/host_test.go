package source

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestInstalled(t *testing.T) {
	for name, row := range map[string]struct {
		have []string
		want Files
		err  error
	}{
		"all": {
			[]string{"boot/vmlinuz-6.1", "boot/config-6.1", "lib/modules/6.1/kernel/x.ko"},
			Files{"boot/vmlinuz-6.1", "boot/config-6.1", "lib/modules/6.1"}, nil,
		},
		"kernel alone":              {[]string{"boot/vmlinuz-6.1"}, Files{Kernel: "boot/vmlinuz-6.1"}, nil},
		"kernel beside its modules": {[]string{"lib/modules/6.1/vmlinuz"}, Files{Kernel: "lib/modules/6.1/vmlinuz", Modules: "lib/modules/6.1"}, nil},
		"another release":           {[]string{"boot/vmlinuz-6.2", "lib/modules/6.2/vmlinuz"}, Files{}, os.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, f := range row.have {
				path := filepath.Join(root, f)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := installed(root, "6.1")
			if !errors.Is(err, row.err) {
				t.Fatalf("error %v, want %v", err, row.err)
			}
			for _, p := range []struct{ got, want string }{
				{got.Kernel, row.want.Kernel}, {got.Config, row.want.Config}, {got.Modules, row.want.Modules},
			} {
				if err == nil && p.got != "" && p.got != filepath.Join(root, p.want) || err == nil && p.got == "" && p.want != "" {
					t.Errorf("got %s, want %s", p.got, p.want)
				}
			}
		})
	}
}
