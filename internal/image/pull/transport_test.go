package pull

import (
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestIsLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST.": true, "a.localhost": true, "127.0.0.1": true, "127.9.9.9": true, "::1": true,
		"::ffff:127.0.0.1": true, "169.254.169.254": false, "fe80::1": false, "0.0.0.0": false, "10.0.0.1": false,
		"localhost.example.org": false, "notlocalhost": false, "example.org": false,
	} {
		if got := isLoopback(host); got != want {
			t.Errorf("%s: %v, want %v", host, got, want)
		}
	}
	for host, want := range map[string]string{"a:5000": "a", "a": "a", "[::1]:5000": "::1", "[::1]": "::1"} {
		if got := hostname(host); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
}

func TestRedirectsThatAreRefused(t *testing.T) {
	for _, row := range []struct {
		name, from, to string
		refused        bool
	}{
		{"to storage", "https://r.io/v2/", "https://storage.example/x?signature", false},
		{"plain to plain", "http://r.io/v2/", "http://storage.example/x", false},
		{"to https", "http://r.io/v2/", "https://r.io/v2/", false},
		{"to http", "https://r.io/v2/", "http://r.io/v2/", true},
		{"within this host", "http://localhost:5000/v2/", "http://127.0.0.1:9000/", false},
		{"to a file", "https://r.io/v2/", "file:///etc/passwd", true},
	} {
		from, err := url.Parse(row.from)
		if err != nil {
			t.Fatal(err)
		}
		to, err := url.Parse(row.to)
		if err != nil {
			t.Fatal(err)
		}
		err = checkRedirect(&http.Request{URL: to}, []*http.Request{{URL: from}})
		if (err != nil) != row.refused {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

// certificateOf writes the server's certificate to a file, and returns its path.
func certificateOf(t *testing.T, s *server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}
	writeFile(t, path, string(pem.EncodeToMemory(block)), 0o600)
	return path
}

func TestP1HTTPSNeedsATrustedCertificate(t *testing.T) {
	s, o := startServer(t, (*httptest.Server).StartTLS), testOptions(t)
	want := makeImage(t, 200_000)
	ref := s.push(t, "app:1", want)
	_, err := Resolve(t.Context(), ref, o)
	expectError(t, err, "certificate")
	if errors.Is(err, ErrNetwork) || errors.Is(err, ErrPlainHTTP) {
		t.Errorf("error %v: of the wrong kind", err)
	}
	o.CACert = certificateOf(t, s)
	expectLayers(t, mustResolve(t, ref, o), want)
	for name, text := range map[string]string{"no such file": "/no/such.pem", "no PEM": tempFile(t, []byte("hello"))} {
		o.CACert = text
		if _, err := Resolve(t.Context(), ref, o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestP1PlainHTTP connects to an http server by a name that is not this host's,
// because for this host banger tries http without the flag.
func TestP1PlainHTTP(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	want := makeImage(t, 1000)
	s.push(t, "app:1", want)
	for _, row := range []struct {
		name  string
		plain bool
		is    error
	}{{"without the flag", false, ErrPlainHTTP}, {"with the flag", true, nil}} {
		t.Run(row.name, func(t *testing.T) {
			o := o
			o.PlainHTTP = row.plain
			ref, err := parseReference("registry.example:5000/app:1")
			if err != nil {
				t.Fatal(err)
			}
			r, err := newRegistry(ref.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			defer r.close()
			r.endpoints[0].gate.transport.DialContext = dialTo(s.host())
			_, _, err = r.manifest(t.Context(), "1")
			if err = classify(err); !errors.Is(err, row.is) {
				t.Errorf("got %v, want %v", err, row.is)
			}
		})
	}
}

// TestP1MirrorsAreTriedFirst pulls through mirrors that work and that fail.
func TestP1MirrorsAreTriedFirst(t *testing.T) {
	want := makeImage(t, 200_000, 1000)
	for _, row := range []struct {
		name   string
		mirror handler
		served bool // whether the mirror serves the layers
		notice string
	}{
		{"works", nil, true, ""},
		{"has nothing", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(http.StatusNotFound) }, false, "404"},
		{"wants a login", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(http.StatusUnauthorized) }, false, "401"},
		{"is broken", func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }, false, "EOF"},
		{"has no layers", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if strings.Contains(r.URL.Path, "/blobs/") {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			next.ServeHTTP(w, r)
		}, false, "404"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, mirror, o := newServer(t), newServer(t), testOptions(t)
			ref := s.push(t, "org/app:1", want)
			mirror.push(t, "org/app:1", want)
			mirror.injectFault(row.mirror)
			var notices []string
			o.MaxConnections = 1
			o.Notice = func(s string) { notices = append(notices, s) }
			o.Mirrors = map[string][]string{s.host(): {"http://" + mirror.host()}}
			img := mustResolve(t, ref, o)
			expectLayers(t, img, want)
			if img.Name != ref {
				t.Errorf("name %s, want %s", img.Name, ref)
			}
			if served := s.count("/blobs/") == 0; served != row.served || mirror.count("/v2/") == 0 {
				t.Errorf("served by the mirror: %v, want %v", served, row.served)
			}
			if down := !row.served && row.name != "has nothing" && row.name != "has no layers"; down && len(notices) != 1 {
				t.Errorf("a mirror that is down received another request: %q", notices)
			}
			if row.notice != "" && (len(notices) == 0 || !strings.Contains(notices[0], "mirror "+mirror.host()) || !strings.Contains(notices[0], row.notice)) {
				t.Errorf("notices %q", notices)
			}
		})
	}
}

func TestEndpoints(t *testing.T) {
	for _, row := range []struct {
		host    string
		plain   bool
		want    string
		repo    string
		schemes string
	}{
		{"r.io", false, "r.io", "a/b", "https"},
		{"r.io:5000", true, "r.io:5000", "a/b", "http"},
		{"http://r.io", false, "r.io", "a/b", "http"},
		{"https://r.io/", false, "r.io", "a/b", "https"},
		{"r.io/hub", false, "r.io", "hub/a/b", "https"},
		{"localhost:5000", false, "localhost:5000", "a/b", "https,http"},
		{"[::1]:5000", false, "[::1]:5000", "a/b", "https,http"},
		{"10.0.0.1:5000", false, "10.0.0.1:5000", "a/b", "https"},
	} {
		e := newEndpoint(row.host, "a/b", row.plain)
		if e.host != row.want || e.repo != row.repo || strings.Join(e.schemes, ",") != row.schemes {
			t.Errorf("%s: got %s %s %v", row.host, e.host, e.repo, e.schemes)
		}
	}
}

// TestConnectionsAreBounded reads more layers concurrently than there may be
// connections.
func TestConnectionsAreBounded(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	o.MaxConnections = 2
	want := makeImage(t, 1000, 2000, 3000, 4000, 5000, 6000)
	img := mustResolve(t, s.push(t, "app:1", want), o)
	active := make(chan struct{}, 2)
	s.injectFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		select {
		case active <- struct{}{}:
			defer func() { <-active }()
		default:
			t.Error("more requests than allowed")
		}
		next.ServeHTTP(w, r)
	})
	done := make(chan error, len(img.Layers))
	for _, l := range img.Layers {
		go func() {
			_, err := readLayer(t.Context(), l)
			done <- err
		}()
	}
	for range img.Layers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestCacheFolderThatCannotBeCreated(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	ref := s.push(t, "app:1", makeImage(t, 10))
	o.CacheDir = filepath.Join(tempFile(t, nil), "cache")
	_, err := Resolve(t.Context(), ref, o)
	expectError(t, err, "make cache", "not a directory")
	o.CacheDir = ""
	_, err = Resolve(t.Context(), ref, o)
	expectError(t, err, "no cache folder")
	if _, err := os.Stat("oci"); err == nil {
		t.Error("a cache was made in the working folder")
	}
}
