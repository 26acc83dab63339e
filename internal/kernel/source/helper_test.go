package source

import (
	"path/filepath"
	"testing"

	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/kernel/kerneltest"
)

// testStore is an empty store whose folder is known.
type testStore struct {
	*kernel.Store
	dir string
}

func openStore(t testing.TB) testStore {
	t.Helper()
	root := filepath.Join(t.TempDir(), "data")
	s, err := kernel.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return testStore{s, filepath.Join(root, "kernels")}
}

// pull gets a kernel that the store does not have.
func pull(t testing.TB, s testStore, wanted, name string, o Options) *kernel.Kernel {
	t.Helper()
	o.Build.Pull.CacheDir = t.TempDir()
	k, added, err := Pull(t.Context(), s.Store, wanted, name, o)
	if err != nil {
		t.Fatal(err)
	}
	if !added {
		t.Fatalf("%s was there already", wanted)
	}
	return k
}

// pullDeb gets the kernel in a package of kerneltest.Files.
func pullDeb(t testing.TB, s testStore, name string) *kernel.Kernel {
	t.Helper()
	return pull(t, s, "deb:"+kerneltest.WriteFile(t, "k.deb", kerneltest.Deb(t, kerneltest.Control, "xz", kerneltest.Files(t)...)), name, Options{})
}

func leftovers(t testing.TB, s testStore) []string {
	t.Helper()
	return kerneltest.Leftovers(t, s.dir)
}
