// Package xdg returns the paths of banger's folders on a Linux host, by the XDG Base
// Directory Specification, version 0.8. It creates none of them; the package that owns
// a folder does.
package xdg

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// Paths are the folders and files of one user. All are absolute.
type Paths struct {
	Data    string // images and machines: $XDG_DATA_HOME/banger
	Cache   string // content that can be fetched again: $XDG_CACHE_HOME/banger
	Config  string // the configuration file: $XDG_CONFIG_HOME/banger/config.toml
	Runtime string // sockets: $XDG_RUNTIME_DIR/banger
}

// Default returns the paths that follow from the environment of this process. It
// ignores a relative path in a variable, as the specification demands.
func Default() (Paths, error) {
	home, err := os.UserHomeDir()
	if err != nil || !filepath.IsAbs(home) {
		home = ""
	}
	var p Paths
	for _, d := range []struct {
		to               *string
		variable, inHome string
		name             string
	}{
		{&p.Data, "XDG_DATA_HOME", ".local/share", "banger"},
		{&p.Cache, "XDG_CACHE_HOME", ".cache", "banger"},
		{&p.Config, "XDG_CONFIG_HOME", ".config", "banger/config.toml"},
	} {
		base := os.Getenv(d.variable)
		if !filepath.IsAbs(base) {
			if home == "" {
				return Paths{}, fmt.Errorf("neither $%s nor $HOME is an absolute path", d.variable)
			}
			base = filepath.Join(home, d.inHome)
		}
		*d.to = filepath.Join(base, d.name)
	}
	p.Runtime = runtimeDir()
	return p, nil
}

// runtimeDir returns the folder in $XDG_RUNTIME_DIR. If no login manager has set the
// variable, or if it names no folder of this user, as after su(1), it returns a folder
// of the user in the temporary folder.
func runtimeDir() string {
	base := os.Getenv("XDG_RUNTIME_DIR")
	if info, err := os.Stat(base); err == nil && filepath.IsAbs(base) && info.IsDir() {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == os.Geteuid() {
			return filepath.Join(base, "banger")
		}
	}
	return filepath.Join(os.TempDir(), "banger-"+strconv.Itoa(os.Getuid()))
}
