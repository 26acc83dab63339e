package boot

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/banger-vm/banger/internal/guest"
)

func owner(t *testing.T, info fs.FileInfo) [2]uint32 {
	t.Helper()
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatal("no owner")
	}
	return [2]uint32{st.Uid, st.Gid}
}

func validConfig() *guest.Config {
	return &guest.Config{
		Version: guest.Version, Hostname: "box", Init: guest.InitBanger, Modules: []string{"virtio.ko"},
		Network: guest.Network{
			Device: "eth0", Address: "10.0.2.15/24", Gateway: "10.0.2.2", DNS: []string{"10.0.2.3"}, Search: []string{"a.b"},
		},
		HostKey: "key", ClientKeys: []string{"key"}, Time: 1, Entropy: []byte{1, 2},
	}
}

func encode(t *testing.T, c *guest.Config) []byte {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The configuration holds keys, so the file must not remain.
func TestReadConfigRemovesTheFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(name, encode(t, validConfig()), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := readConfig(name)
	if err != nil || !reflect.DeepEqual(c, validConfig()) {
		t.Errorf("readConfig: %+v, %v", c, err)
	}
	if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestDecodeConfigRefuses(t *testing.T) {
	for name, change := range map[string]func(c *guest.Config){
		"other version":            func(c *guest.Config) { c.Version++ },
		"no hostname":              func(c *guest.Config) { c.Hostname = "" },
		"hostname with a line":     func(c *guest.Config) { c.Hostname = "a\n1.2.3.4 b" },
		"hostname with a space":    func(c *guest.Config) { c.Hostname = "a b" },
		"hostname with a slash":    func(c *guest.Config) { c.Hostname = "../a" },
		"long hostname":            func(c *guest.Config) { c.Hostname = strings.Repeat("a", 65) },
		"no init":                  func(c *guest.Config) { c.Init = "" },
		"image init without argv":  func(c *guest.Config) { c.Init = guest.InitImage },
		"relative image init":      func(c *guest.Config) { c.Init, c.InitArgs = guest.InitImage, []string{"init"} },
		"NUL in argv":              func(c *guest.Config) { c.Init, c.InitArgs = guest.InitImage, []string{"/init", "a\x00b"} },
		"relative folder":          func(c *guest.Config) { c.Folders = []string{"data"} },
		"folder with a NUL":        func(c *guest.Config) { c.Folders = []string{"/a\x00b"} },
		"overlay, writable root":   func(c *guest.Config) { c.Overlay = true },
		"module elsewhere":         func(c *guest.Config) { c.Modules = []string{"../../sysroot/evil.ko"} },
		"module ..":                func(c *guest.Config) { c.Modules = []string{".."} },
		"module without a name":    func(c *guest.Config) { c.Modules = []string{""} },
		"device elsewhere":         func(c *guest.Config) { c.Network.Device = "../lo" },
		"long device":              func(c *guest.Config) { c.Network.Device = "abcdefghijklmnop" },
		"address without device":   func(c *guest.Config) { c.Network.Device = "" },
		"address without length":   func(c *guest.Config) { c.Network.Address = "10.0.2.15" },
		"IPv6 address":             func(c *guest.Config) { c.Network.Address = "fe80::1/64" },
		"IPv6 gateway":             func(c *guest.Config) { c.Network.Gateway = "fe80::1" },
		"name server with a line":  func(c *guest.Config) { c.Network.DNS = []string{"1.1.1.1\noptions x"} },
		"zone with a line":         func(c *guest.Config) { c.Network.DNS = []string{"fe80::1%a\noptions x"} },
		"search domain, two lines": func(c *guest.Config) { c.Network.Search = []string{"a\nnameserver 6.6.6.6"} },
		"much entropy":             func(c *guest.Config) { c.Entropy = make([]byte, maxEntropy+1) },
		"too long":                 func(c *guest.Config) { c.HostKey = strings.Repeat("x", maxConfig) },
	} {
		c := validConfig()
		change(c)
		if _, err := decodeConfig(encode(t, c)); err == nil {
			t.Errorf("%s: was accepted", name)
		}
	}
	for _, s := range []string{"", "null", "[]", `{"version":1,"hostname":"a","init":"banger","more":1}`, "{"} {
		if _, err := decodeConfig([]byte(s)); err == nil {
			t.Errorf("%q: was accepted", s)
		}
	}
	if _, err := decodeConfig(encode(t, validConfig())); err != nil {
		t.Errorf("the valid configuration: %v", err)
	}
}

// An accepted configuration is safe to use in paths and lines.
func FuzzDecodeConfig(f *testing.F) {
	b, err := json.Marshal(validConfig())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"version":1,"hostname":"a.b","init":"image","initArgs":["/sbin/init"]}`))
	f.Add([]byte(`{"version":1,"hostname":"a","init":"banger","modules":["a/b"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeConfig(b)
		if err != nil {
			return
		}
		for _, m := range c.Modules {
			if filepath.Base(m) != m || m == ".." {
				t.Errorf("module %q", m)
			}
		}
		if lines := strings.Count(hosts(c.Hostname, c.Network.Address), "\n"); lines != 7 {
			t.Errorf("hostname %q makes %d lines of hosts", c.Hostname, lines)
		}
		lines := strings.Count(resolvConf(&c.Network), "\n")
		if want := len(c.Network.DNS) + min(1, len(c.Network.Search)); lines != want {
			t.Errorf("%+v makes %d lines of resolv.conf, want %d", c.Network, lines, want)
		}
	})
}
