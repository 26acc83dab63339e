package bootplan

import (
	"slices"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/machine/spec"
)

// TestR1CommandRules checks that an image's and a user's command are merged by
// docker's rules.
func TestR1CommandRules(t *testing.T) {
	image := store.Config{
		Entrypoint: []string{"/entry", "-x"}, Cmd: []string{"serve"}, Env: []string{"PATH=/bin", "A=image"},
		User: "dev", WorkingDir: "/work", StopSignal: "SIGQUIT",
	}
	text := func(s string) *string { return &s }
	for _, row := range []struct {
		name string
		conf spec.Config
		want []string
	}{
		{"the image's own", spec.Config{}, []string{"/entry", "-x", "serve"}},
		{"arguments replace Cmd", spec.Config{Args: []string{"a", "b"}}, []string{"/entry", "-x", "a", "b"}},
		{"an entrypoint drops Cmd", spec.Config{Entrypoint: text("/other")}, []string{"/other"}},
		{"an entrypoint with arguments", spec.Config{Entrypoint: text("/other"), Args: []string{"a"}}, []string{"/other", "a"}},
		{"an empty entrypoint", spec.Config{Entrypoint: text(""), Args: []string{"a"}}, []string{"a"}},
		{"an empty entrypoint alone", spec.Config{Entrypoint: text("")}, []string{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := command(&row.conf, &image).Args; !slices.Equal(got, row.want) {
				t.Errorf("command = %q, want %q", got, row.want)
			}
		})
	}
	if image.Entrypoint[0] != "/entry" || len(image.Entrypoint) != 2 {
		t.Errorf("the image's configuration was changed: %q", image.Entrypoint)
	}
}

func TestR1CommandEnvironment(t *testing.T) {
	image := store.Config{Env: []string{"PATH=/bin", "=x", "A=image", "B=image"}, User: "dev", WorkingDir: "/work", StopSignal: "SIGQUIT"}
	conf := spec.Config{Hostname: "box", Env: []string{"A=mine", "C=3", "A=last"}, Stdin: true}
	got := command(&conf, &image)
	want := []string{"HOSTNAME=box", "PATH=/bin", "A=last", "B=image", "C=3"}
	if !slices.Equal(got.Env, want) {
		t.Errorf("environment = %q, want %q", got.Env, want)
	}
	if got.User != "dev" || got.Dir != "/work" || got.StopSignal != "SIGQUIT" || !got.Stdin || got.Main {
		t.Errorf("command = %+v", got)
	}
	conf.Env = []string{"B"}
	if got := command(&conf, &image).Env; slices.ContainsFunc(got, func(v string) bool { return strings.HasPrefix(v, "B") }) {
		t.Errorf("environment = %q, want no B", got)
	}
	conf.User, conf.Dir = "0:0", "/"
	if got := command(&conf, &image); got.User != "0:0" || got.Dir != "/" {
		t.Errorf("user and folder of the command line are not taken: %+v", got)
	}
}
