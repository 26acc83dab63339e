package boot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path"
	"strings"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/control"
)

// Limits of a configuration.
const (
	// maxConfig is below the limit of a message, which holds a configuration
	// and its field name.
	maxConfig   = control.MaxMessage - 1<<10
	maxHostname = 64   // bytes, HOST_NAME_MAX of linux/limits.h
	maxDevice   = 15   // bytes, IFNAMSIZ of linux/if.h with its NUL
	maxEntropy  = 4096 // bytes
)

// readConfig reads the configuration at name and removes the file, because it
// holds keys that the image's init must not find in the initramfs.
func readConfig(name string) (*guest.Config, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if err := os.Remove(name); err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	c, err := decodeConfig(b)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return c, nil
}

func decodeConfig(b []byte) (*guest.Config, error) {
	if len(b) > maxConfig {
		return nil, fmt.Errorf("more than %d bytes", maxConfig)
	}
	// The version is checked first, because an unknown field is a sign of
	// another version.
	var version struct{ Version int }
	if err := json.Unmarshal(b, &version); err != nil {
		return nil, err
	}
	if version.Version != guest.Version {
		return nil, fmt.Errorf("version %d, this guest program supports only %d", version.Version, guest.Version)
	}
	c := new(guest.Config)
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(c); err != nil {
		return nil, err
	}
	return c, checkConfig(c)
}

func checkConfig(c *guest.Config) error {
	switch {
	case !isHostname(c.Hostname):
		return fmt.Errorf("hostname %q", c.Hostname)
	case c.Init != guest.InitBanger && c.Init != guest.InitImage:
		return fmt.Errorf("init %q", c.Init)
	case c.Init == guest.InitImage && (len(c.InitArgs) == 0 || !path.IsAbs(c.InitArgs[0])):
		return fmt.Errorf("arguments of init %q", c.InitArgs)
	case c.Overlay && !c.ReadOnly:
		return errors.New("overlay over a writable root file system")
	case len(c.Entropy) > maxEntropy:
		return fmt.Errorf("%d bytes of entropy", len(c.Entropy))
	}
	for _, arg := range c.InitArgs {
		if strings.Contains(arg, "\x00") {
			return fmt.Errorf("argument of init %q", arg)
		}
	}
	for _, dir := range c.Folders {
		if !path.IsAbs(dir) || strings.Contains(dir, "\x00") {
			return fmt.Errorf("folder %q", dir)
		}
	}
	for _, name := range c.Modules {
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return fmt.Errorf("module %q", name)
		}
	}
	return checkNetwork(&c.Network)
}

// isHostname reports whether the kernel and /etc/hosts can hold s as a
// hostname.
func isHostname(s string) bool {
	if s == "" || len(s) > maxHostname || s[0] == '-' || s[0] == '.' {
		return false
	}
	return !strings.ContainsFunc(s, notInHostname)
}

func notInHostname(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-'
}

// whitespace lists the characters that would start another word or line in a
// configuration file.
const whitespace = " \t\r\n\x00"

func checkNetwork(n *guest.Network) error {
	if n.Device == "" {
		if n.Address != "" || n.Gateway != "" {
			return errors.New("network without a device")
		}
	} else if len(n.Device) > maxDevice || strings.ContainsAny(n.Device, "/"+whitespace) {
		return fmt.Errorf("network device %q", n.Device)
	}
	if n.Address != "" {
		if p, err := netip.ParsePrefix(n.Address); err != nil || !p.Addr().Is4() {
			return fmt.Errorf("network address %q", n.Address)
		}
	}
	if n.Gateway != "" {
		if a, err := netip.ParseAddr(n.Gateway); err != nil || !a.Is4() {
			return fmt.Errorf("gateway %q", n.Gateway)
		}
	}
	for _, s := range n.DNS {
		// The zone of an address may have any character.
		if _, err := netip.ParseAddr(s); err != nil || strings.ContainsAny(s, whitespace) {
			return fmt.Errorf("name server %q", s)
		}
	}
	for _, s := range n.Search {
		if s == "" || strings.ContainsAny(s, whitespace) {
			return fmt.Errorf("search domain %q", s)
		}
	}
	return nil
}
