package env

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNetworks(t *testing.T) {
	for _, row := range []struct{ text, want, err string }{
		{`"10.0.0.0/8", "fd00:12::/32"`, "10.0.0.0/8 fd00:12::/32", ""},
		{`"10.1.2.3", "::1", "::ffff:10.1.2.3"`, "10.1.2.3/32 ::1/128 10.1.2.3/32", ""},
		{`"registry.lan"`, "", `network "registry.lan": want an address`},
		{`"10.0.0.0/40"`, "", "want an address"},
		{`"::ffff:10.0.0.0/104"`, "", "want an address"}, // never matches: addresses are compared in their IPv4 form
		{`"fe80::1%eth0"`, "", "want an address"},
	} {
		path := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(path, []byte("[registry.r]\nallow-addresses = ["+row.text+"]\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := readConfig(path)
		if row.err != "" {
			if err == nil || !strings.Contains(err.Error(), row.err) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: error %v", row.text, err)
			}
			continue
		}
		var got []string
		for _, n := range c.Registry["r"].AllowAddresses {
			got = append(got, n.String())
		}
		if s := strings.Join(got, " "); err != nil || s != row.want {
			t.Errorf("%s: got %s, %v", row.text, s, err)
		}
	}
}
