package pull

import (
	"strings"
	"testing"
)

func TestParseSource(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("ab", 32)
	for _, row := range []struct{ text, kind, path, tag, host string }{
		{"debian", kindRegistry, "", "docker.io/library/debian:latest", "docker.io"},
		{"debian:12", kindRegistry, "", "docker.io/library/debian:12", "docker.io"},
		{"docker://debian:12", kindRegistry, "", "docker.io/library/debian:12", "docker.io"},
		{"docker.io/org/app", kindRegistry, "", "docker.io/org/app:latest", "docker.io"},
		{"localhost:5000/x:1", kindRegistry, "", "localhost:5000/x:1", "localhost:5000"},
		{"[::1]:5000/x:1", kindRegistry, "", "[::1]:5000/x:1", "[::1]:5000"},
		{"ghcr.io/org/app" + digest, kindRegistry, "", "ghcr.io/org/app" + digest, "ghcr.io"},
		{"ghcr.io/org/app:1" + digest, kindRegistry, "", "ghcr.io/org/app" + digest, "ghcr.io"},
		{"docker://oci:1", kindRegistry, "", "docker.io/library/oci:1", "docker.io"},
		{"oci:dir", kindLayout, "dir", "", ""},
		{"oci:/a/dir:localhost:5000/x:1", kindLayout, "/a/dir", "localhost:5000/x:1", ""},
		{"oci-archive:a.tar:v1", kindLayoutArchive, "a.tar", "v1", ""},
		{"docker-archive:a.tar:debian:12", kindDockerArchive, "a.tar", "debian:12", ""},
		{"docker-archive:-", kindDockerArchive, "-", "", ""},
		{"docker-daemon:debian:12", kindDaemon, "", "debian:12", ""},
		{"docker-daemon:sha256:" + strings.Repeat("ab", 32), kindDaemon, "", "sha256:" + strings.Repeat("ab", 32), ""},
		{"tar:a:b.tar", kindTar, "a:b.tar", "", ""},
		{"tar:-", kindTar, "-", "", ""},
	} {
		s, err := parseSource(row.text)
		if err != nil {
			t.Errorf("%s: %v", row.text, err)
			continue
		}
		tag := s.tag
		if s.ref != nil {
			tag = canonical(s.ref)
		}
		if s.kind != row.kind || s.path != row.path || tag != row.tag {
			t.Errorf("%s: got %s %q %q", row.text, s.kind, s.path, tag)
		}
		if host, err := RegistryHost(row.text); err != nil || host != row.host {
			t.Errorf("%s: host %q, %v", row.text, host, err)
		}
	}
}

func TestParseSourceRefuses(t *testing.T) {
	for name, row := range map[string]struct{ text, want string }{
		"nothing":            {"", "reference"},
		"a URL":              {"https://ghcr.io/org/app", "no https://"},
		"another digest":     {"app@sha512:" + strings.Repeat("ab", 64), "sha256"},
		"a short digest":     {"app@sha256:abcd", "reference"},
		"uppercase":          {"ghcr.io/Org/App", "reference"},
		"climbing":           {"ghcr.io/../../etc", "reference"},
		"an escape sequence": {"app\x1b[2J", "control"},
		"a newline":          {"app\nx", "control"},
		"endless":            {strings.Repeat("a", 10000), "too long"},
		"no folder":          {"oci:", "no path"},
		"only a tag":         {"oci-archive::v1", "no path"},
		"no file":            {"tar:", "no path"},
		"no image":           {"docker-daemon:", "reference"},
		"a daemon's path":    {"docker-daemon:../containers/json?x", "reference"},
		"an unknown kind":    {"rsync:/tmp/x", "reference"},
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t)
			_, err := Resolve(t.Context(), row.text, o)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
			if _, err := RegistryHost(row.text); err == nil {
				t.Error("RegistryHost accepts it")
			}
		})
	}
}

func TestNames(t *testing.T) {
	for text, want := range map[string][2]string{
		"debian":                  {"docker.io/library/debian:latest", "debian:latest"},
		"org/app:1":               {"docker.io/org/app:1", "org/app:1"},
		"index.docker.io/a/b":     {"docker.io/a/b:latest", "a/b:latest"},
		"localhost:5000/a":        {"localhost:5000/a:latest", "localhost:5000/a:latest"},
		"docker.io/library/x:tag": {"docker.io/library/x:tag", "x:tag"},
	} {
		if c := CanonicalName(text); c != want[0] || FamiliarName(c) != want[1] || CanonicalName(FamiliarName(c)) != c {
			t.Errorf("%s: %s, %s", text, c, FamiliarName(c))
		}
	}
	for _, text := range []string{"", "A", "a b", "../x", "https://x"} {
		if c := CanonicalName(text); c != "" {
			t.Errorf("%q became %s", text, c)
		}
	}
	for path, want := range map[string]string{
		"/tmp/My Image (1).tar.gz": "my-image--1:latest", "-": "stdin:latest", "/": "image:latest", "x.oci": "x:latest",
	} {
		if got := FamiliarName(fileName(path, "")); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if got := FamiliarName(fileName("/srv/layout", "v1")); got != "layout:v1" {
		t.Errorf("got %s", got)
	}
}

func FuzzParseSource(f *testing.F) {
	seeds := []string{
		"debian:12", "docker://ghcr.io/a/b@sha256:" + strings.Repeat("0", 64), "oci:dir:tag", "oci-archive:a.tar:x/y:z",
		"docker-archive:-", "docker-daemon:debian", "tar:-", "[::1]:5000/x", "a:b:c", "://", "@", "docker-daemon:sha256:00",
	}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSource(text)
		if err != nil {
			return
		}
		if (s.kind == kindRegistry) != (s.ref != nil) {
			t.Errorf("kind %s, reference %v", s.kind, s.ref)
		}
		if s.ref == nil {
			fileName(s.path, s.tag)
			return
		}
		c := canonical(s.ref)
		if again := CanonicalName(c); again != c {
			t.Errorf("canonical %q becomes %q", c, again)
		}
		if again := CanonicalName(FamiliarName(c)); again != c {
			t.Errorf("familiar %q becomes %q", FamiliarName(c), again)
		}
	})
}
