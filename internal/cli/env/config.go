package env

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/docker/go-units"
	"github.com/pelletier/go-toml/v2"
)

// maxConfig is the largest size of the configuration file, in bytes.
const maxConfig = 1 << 20

// Config is the content of the configuration file. Every key is optional.
// docs/config.md describes the keys.
type Config struct {
	DataRoot string              `toml:"data-root"`
	Builder  string              `toml:"builder"`
	Paths    string              `toml:"paths"`
	Platform string              `toml:"platform"`
	Kernel   string              `toml:"kernel"`
	QEMU     QEMU                `toml:"qemu"`
	Limits   Limits              `toml:"limits"`
	Registry map[string]Registry `toml:"registry"`
}

// Limits are the limits for an image. 0 stands for the default.
type Limits struct {
	Unpacked    Size `toml:"unpacked"` // bytes of all layers, decompressed
	Inodes      int  `toml:"inodes"`
	Disk        Size `toml:"disk"`  // bytes of a disk
	Depth       int  `toml:"depth"` // of directories
	Layers      int  `toml:"layers"`
	JSON        Size `toml:"json"`   // bytes of a manifest, index or config
	XattrValue  Size `toml:"xattr"`  // bytes of one extended attribute
	Window      Size `toml:"window"` // bytes of the window of a zstd layer
	Connections int  `toml:"connections"`
	MinRate     Size `toml:"min-rate"` // bytes per second of a download
}

// QEMU is the configuration of the program that runs machines.
type QEMU struct {
	// Folders are further folders that QEMU may read and run.
	Folders []string `toml:"folders"`
	// Confine is false to start QEMU without Landlock and the second seccomp
	// filter. Use Unconfined to read it.
	Confine *bool `toml:"confine"`
}

// Unconfined reports whether Confine is set to false.
func (q *QEMU) Unconfined() bool { return q.Confine != nil && !*q.Confine }

// Registry is the configuration of one registry.
type Registry struct {
	Mirrors   []string `toml:"mirrors"` // hosts to ask before the registry, in order
	PlainHTTP bool     `toml:"plain-http"`
	CACert    string   `toml:"ca-cert"` // PEM file
	// AllowAddresses are addresses and networks to which the registry may lead,
	// though it is on another network itself.
	AllowAddresses []Network `toml:"allow-addresses"`
}

// Network is a network of addresses, such as 10.0.0.0/8. A single address stands
// for the network of it alone.
type Network struct{ netip.Prefix }

// UnmarshalText parses a network of the configuration file.
func (n *Network) UnmarshalText(text []byte) error {
	s := string(text)
	addr, err := netip.ParseAddr(s)
	if err == nil && addr.Zone() == "" {
		n.Prefix = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())
		return nil
	}
	if n.Prefix, err = netip.ParsePrefix(s); err != nil || n.Addr().Is4In6() {
		return fmt.Errorf("network %q: want an address such as 10.1.2.3, or a network such as 10.0.0.0/8", s)
	}
	return nil
}

// Size is a number of bytes. Its text may have a suffix, as in "8M" or "64G",
// for a power of 1024.
type Size int64

// UnmarshalText parses a size of the configuration file.
func (s *Size) UnmarshalText(text []byte) error {
	n, err := ParseSize(string(text))
	*s = Size(n)
	return err
}

// ParseSize returns the bytes of a size such as "8M" or "64G".
func ParseSize(text string) (int64, error) {
	n, err := units.RAMInBytes(text)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("size %q: want a number with an optional suffix K, M, G or T", text)
	}
	return n, nil
}

// readConfig reads the file at path, or returns an empty Config if the file does
// not exist. It returns an error for an unknown key, which is most likely
// misspelt.
func readConfig(path string) (Config, error) {
	var c Config
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	if len(data) > maxConfig {
		return c, fmt.Errorf("read configuration %s: more than %d bytes", path, maxConfig)
	}
	dec := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
			row, _ := strict.Errors[0].Position()
			return c, fmt.Errorf("read configuration %s: line %d: unknown key %v", path, row, strict.Errors[0].Key())
		}
		return c, fmt.Errorf("read configuration %s: %w", path, err)
	}
	return c, c.check(path)
}

func (c *Config) check(path string) error {
	l := c.Limits
	for _, n := range []struct {
		key   string
		value int
	}{{"inodes", l.Inodes}, {"depth", l.Depth}, {"layers", l.Layers}, {"connections", l.Connections}} {
		if n.value < 0 {
			return fmt.Errorf("read configuration %s: limits.%s is negative", path, n.key)
		}
	}
	for _, folder := range c.QEMU.Folders {
		if !filepath.IsAbs(folder) {
			return fmt.Errorf("read configuration %s: qemu.folders: %q is not an absolute path", path, folder)
		}
	}
	return nil
}
