package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// loadModules loads the modules in the order given and removes their files,
// which the memory has no other use for. One that is there already, or built
// in, is no error.
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
		return errors.New("it needs what no module before it has, or it is another kernel's")
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return os.Remove(file)
}
