package machine

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/image/store"
)

// TestR1CommandRules holds the joining of image and command line against
// docker's rules.
func TestR1CommandRules(t *testing.T) {
	image := store.Config{
		Entrypoint: []string{"/entry", "-x"}, Cmd: []string{"serve"}, Env: []string{"PATH=/bin", "A=image"},
		User: "dev", WorkingDir: "/work", StopSignal: "SIGQUIT",
	}
	text := func(s string) *string { return &s }
	for _, row := range []struct {
		name string
		conf Config
		want []string
	}{
		{"the image's own", Config{}, []string{"/entry", "-x", "serve"}},
		{"arguments take the place of Cmd", Config{Args: []string{"a", "b"}}, []string{"/entry", "-x", "a", "b"}},
		{"an entrypoint drops Cmd", Config{Entrypoint: text("/other")}, []string{"/other"}},
		{"an entrypoint with arguments", Config{Entrypoint: text("/other"), Args: []string{"a"}}, []string{"/other", "a"}},
		{"an empty entrypoint", Config{Entrypoint: text(""), Args: []string{"a"}}, []string{"a"}},
		{"an empty entrypoint alone", Config{Entrypoint: text("")}, []string{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := row.conf.command(&image).Args; !slices.Equal(got, row.want) {
				t.Errorf("command = %q, want %q", got, row.want)
			}
		})
	}
	if image.Entrypoint[0] != "/entry" || len(image.Entrypoint) != 2 {
		t.Errorf("the image's configuration was changed: %q", image.Entrypoint)
	}
}

func TestR1CommandSurroundings(t *testing.T) {
	image := store.Config{Env: []string{"PATH=/bin", "A=image", "B=image"}, User: "dev", WorkingDir: "/work", StopSignal: "SIGQUIT"}
	conf := Config{Hostname: "box", Env: []string{"A=mine", "C=3", "A=last"}, Stdin: true}
	got := conf.command(&image)
	want := []string{"HOSTNAME=box", "PATH=/bin", "A=last", "B=image", "C=3"}
	if !slices.Equal(got.Env, want) {
		t.Errorf("environment = %q, want %q", got.Env, want)
	}
	if got.User != "dev" || got.Dir != "/work" || got.StopSignal != "SIGQUIT" || !got.Stdin || got.Main {
		t.Errorf("command = %+v", got)
	}
	conf.Env = []string{"B"}
	if got := conf.command(&image).Env; slices.ContainsFunc(got, func(v string) bool { return strings.HasPrefix(v, "B") }) {
		t.Errorf("environment = %q, want no B", got)
	}
	conf.User, conf.Dir = "0:0", "/"
	if got := conf.command(&image); got.User != "0:0" || got.Dir != "/" {
		t.Errorf("user and folder of the command line are not taken: %+v", got)
	}
}

func TestConfigComplete(t *testing.T) {
	for _, row := range []struct {
		name string
		conf Config
		good bool
	}{
		{"nothing", Config{}, true},
		{"a name with an underscore", Config{Name: "a_b"}, true},
		{"a name with a slash", Config{Name: "a/b"}, false},
		{"a name that begins with a dash", Config{Name: "-a"}, false},
		{"a name that is an ID", Config{Name: "0123456789ab"}, false},
		{"a hostname with a newline", Config{Hostname: "a\nb"}, false},
		{"no memory to speak of", Config{Memory: 1 << 20}, false},
		{"too many processors", Config{CPUs: MaxCPUs + 1}, false},
		{"fewer than none", Config{CPUs: -1}, false},
		{"a disk of negative size", Config{DiskSize: -1}, false},
		{"an unknown model", Config{Model: "pc"}, false},
		{"an unknown init", Config{Init: "runit"}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := row.conf.complete()
			var input *InputError
			if row.good != (err == nil) || err != nil && !errors.As(err, &input) {
				t.Fatalf("error = %v, want one: %v", err, !row.good)
			}
			if row.good && (row.conf.Name == "" || row.conf.Memory == 0 || row.conf.CPUs == 0) {
				t.Errorf("defaults are missing: %+v", row.conf)
			}
		})
	}
	c := Config{Name: "a_b.c"}
	if err := c.complete(); err != nil || c.Hostname != "a-b-c" {
		t.Errorf("hostname = %q, %v", c.Hostname, err)
	}
}
