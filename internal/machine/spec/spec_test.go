package spec

import (
	"errors"
	"strings"
	"testing"
)

// invalidConfigs lists descriptions that Validate refuses, by the part of the
// message that names the fault.
func invalidConfigs() []struct {
	name   string
	config Config
	remove bool
	want   string
} {
	return []struct {
		name   string
		config Config
		remove bool
		want   string
	}{
		{"a name with a slash", Config{Name: "a/b"}, false, `machine name "a/b"`},
		{"a name that begins with a dash", Config{Name: "-a"}, false, `machine name "-a"`},
		{"a name that is an ID", Config{Name: "0123456789ab"}, false, "12 hexadecimal digits are an ID"},
		{"a hostname with a newline", Config{Hostname: "a\nb"}, false, `hostname "a\nb"`},
		{"a label without a key", Config{Labels: map[string]string{"": "x"}}, false, `label "=x"`},
		{"too little memory", Config{Memory: 1 << 20}, false, "memory of 1 MiB: want 128 MiB or more"},
		{"memory in bytes", Config{Memory: 512}, false, "memory of 512 bytes: want 128 MiB or more"},
		{"memory of a part of a mebibyte", Config{Memory: 1536 << 10}, false, "memory of 1536 KiB: want"},
		{"negative memory", Config{Memory: -1 << 20}, false, "memory of -1 MiB"},
		{"memory of half a page", Config{Memory: DefaultMemory + 2048}, false, "want a multiple of 1 MiB"},
		{"too many processors", Config{CPUs: MaxCPUs + 1}, false, "256 processors: want 1 to 255"},
		{"a negative number of processors", Config{CPUs: -1}, false, "-1 processors"},
		{"a disk of negative size", Config{DiskSize: -512}, false, "disk size -512 is negative"},
		{"a disk beyond it", Config{DiskSize: 20 << 40}, false, "disk size of 20 TiB: want 2 TiB at most"},
		{"a disk of half a sector", Config{DiskSize: 1<<20 + 1}, false, "512 bytes"},
		{"a read-only disk of another size", Config{ReadOnly: true, DiskSize: 1 << 20}, false, "read-only disk"},
		{"an unknown model", Config{Model: "pc"}, false, `machine model "pc": want microvm or q35`},
		{"an unknown init", Config{Init: "runit"}, false, `init "runit": want auto, image or banger`},
		{"an unknown accelerator", Config{Accel: "warp"}, false, `accel "warp": want kvm or tcg`},
		{"an unknown disk driver", Config{DiskDriver: "zfs"}, false, `disk driver "zfs": want auto, reflink, overlay, dm or copy`},
		{"the driver of read-only machines", Config{DiskDriver: Shared}, false, `disk driver "shared"`},
		{"a disk driver in capitals", Config{DiskDriver: "Auto"}, false, `disk driver "Auto"`},
		{"a disk driver with a space", Config{DiskDriver: "auto "}, false, `disk driver "auto "`},
		{"a relative working directory", Config{Dir: "work"}, false, `working directory "work": want an absolute path`},
		{"a variable without a name", Config{Env: []string{"=x"}}, false, `environment variable "=x"`},
		{"a variable with a space in its name", Config{Env: []string{"A B=x"}}, false, `environment variable "A B=x"`},
		{"an argument with a NUL byte", Config{Args: []string{"a\x00b"}}, false, "NUL byte"},
		{"a user with a NUL byte", Config{User: "\x00"}, false, "NUL byte"},
		{"an unknown restart policy", Config{Restart: Restart{Policy: "sometimes", Retries: -3}}, false,
			`restart policy "sometimes": want no, on-failure, always or unless-stopped`},
		{"a negative number of retries", Config{Restart: Restart{RestartOnFailure, -3}}, false, "-3 retries"},
		{"retries of another policy", Config{Restart: Restart{RestartAlways, 3}}, false, "only on-failure has a number of retries"},
		{"retries without a policy", Config{Restart: Restart{Retries: 1}}, false, "restart policy no with 1 retries"},
		{"removal with a restart", Config{Restart: Restart{Policy: RestartAlways}}, true, "removed when it ends"},
	}
}

func TestValidateRefuses(t *testing.T) {
	for _, row := range invalidConfigs() {
		t.Run(row.name, func(t *testing.T) {
			err := Validate(&row.config, row.remove)
			if _, ok := errors.AsType[*InputError](err); !ok || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error = %v, want an InputError with %q", err, row.want)
			}
		})
	}
}

func TestValidateAccepts(t *testing.T) {
	none := ""
	for _, row := range []struct {
		name   string
		config Config
		remove bool
	}{
		{"the zero value", Config{}, false},
		{"the zero value, removed when it ends", Config{}, true},
		{"a name with an underscore", Config{Name: "a_b"}, false},
		{"every word", Config{Model: "q35", Init: "image", Accel: "tcg", DiskDriver: "auto", Restart: Restart{Policy: "no"}}, true},
		{"retries", Config{Restart: Restart{RestartOnFailure, 3}}, false},
		{"retries without a bound", Config{Restart: Restart{RestartOnFailure, 0}}, false},
		{"a command", Config{Entrypoint: &none, Args: []string{"a b", ""}, Env: []string{"A=b c", "B", "C="}, User: "0:0", Dir: "/"}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			if err := Validate(&row.config, row.remove); err != nil {
				t.Error(err)
			}
			row.config.SetDefaults()
			if row.config.Name == "" || row.config.Memory == 0 || row.config.CPUs == 0 {
				t.Errorf("defaults are missing: %+v", row.config)
			}
			if err := Validate(&row.config, row.remove); err != nil {
				t.Errorf("with defaults: %v", err)
			}
		})
	}
	c := Config{Name: "a_b.c"}
	if c.SetDefaults(); c.Hostname != "a-b-c" {
		t.Errorf("hostname = %q", c.Hostname)
	}
}
