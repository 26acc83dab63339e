package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// loadModules loads the modules in the given order and removes their files to
// free the memory of the initramfs. A module that is already loaded or built in
// is not an error.
func loadModules(dir string, names []string) error {
	for _, name := range names {
		if err := loadModule(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return nil
}

func loadModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if errors.Is(err, unix.ENOENT) {
		return errors.New("a symbol is missing: an earlier module was not loaded, or the module is for another kernel")
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return os.Remove(file)
}
