package xdg

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

func TestDefault(t *testing.T) {
	uid := strconv.Itoa(os.Getuid())
	run := t.TempDir()
	file := filepath.Join(run, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name string
		env  map[string]string
		want Paths
		fail bool
	}{
		{
			"from home", map[string]string{"HOME": "/h", "TMPDIR": "/t"},
			Paths{"/h/.local/share/banger", "/h/.cache/banger", "/h/.config/banger/config.toml", "/t/banger-" + uid}, false,
		},
		{
			"from the variables",
			map[string]string{"HOME": "/h", "XDG_DATA_HOME": "/d", "XDG_CACHE_HOME": "/c", "XDG_CONFIG_HOME": "/e", "XDG_RUNTIME_DIR": run},
			Paths{"/d/banger", "/c/banger", "/e/banger/config.toml", run + "/banger"}, false,
		},
		{
			"relative variables are ignored",
			map[string]string{"HOME": "/h", "XDG_DATA_HOME": "d", "XDG_RUNTIME_DIR": "./r", "TMPDIR": "/t"},
			Paths{"/h/.local/share/banger", "/h/.cache/banger", "/h/.config/banger/config.toml", "/t/banger-" + uid}, false,
		},
		{
			"a runtime folder that does not exist", map[string]string{"HOME": "/h", "TMPDIR": "/t", "XDG_RUNTIME_DIR": run + "/none"},
			Paths{"/h/.local/share/banger", "/h/.cache/banger", "/h/.config/banger/config.toml", "/t/banger-" + uid}, false,
		},
		{
			"a runtime folder that is a file", map[string]string{"HOME": "/h", "TMPDIR": "/t", "XDG_RUNTIME_DIR": file},
			Paths{"/h/.local/share/banger", "/h/.cache/banger", "/h/.config/banger/config.toml", "/t/banger-" + uid}, false,
		},
		{"no home", map[string]string{"HOME": ""}, Paths{}, true},
		{"relative home", map[string]string{"HOME": "h"}, Paths{}, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, v := range []string{"HOME", "TMPDIR", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"} {
				t.Setenv(v, c.env[v])
			}
			got, err := Default()
			if (err != nil) != c.fail || got != c.want {
				t.Errorf("got %+v, %v; want %+v", got, err, c.want)
			}
		})
	}
}

// TestRuntimeFolderOfAnotherUser needs root, to make such a folder.
func TestRuntimeFolderOfAnotherUser(t *testing.T) {
	run := t.TempDir()
	if err := os.Chown(run, 65534, 65534); err != nil {
		t.Skip(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", run)
	t.Setenv("TMPDIR", "/t")
	if p, err := Default(); err != nil || p.Runtime != "/t/banger-0" {
		t.Errorf("runtime folder %s, %v", p.Runtime, err)
	}
}
