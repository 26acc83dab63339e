package pull

import (
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

func TestResolveErrorsAreClassified(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	answer := func(status int, kind, body string) handler {
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	for _, row := range []struct {
		name  string
		fault handler
		host  string
		is    error
		text  string
	}{
		{"no such tag", nil, "", ErrNotFound, "404"},
		{"no listener", nil, closed, ErrNetwork, "connection refused"},
		{"no such host", nil, "registry.invalid", ErrNetwork, "registry.invalid"},
		{"unauthorized", answer(401, "application/json", `{"errors":[{"code":"UNAUTHORIZED","message":"log in"}]}`), "", ErrUnauthorized, "log in"},
		{"forbidden", answer(403, "", ""), "", ErrUnauthorized, "403"},
		{"web page", answer(200, "text/html", "<html><body>sign in to this network"), "", nil, "web page"},
		{"no JSON", answer(200, "application/json", "{]"), "", nil, "parse manifest"},
		{"endless", answer(200, typeOCIManifest, strings.Repeat(" ", 9<<20)), "", nil, "the limit is 8388608 (set by limits.json)"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, o := newServer(t), testOptions(t)
			s.injectFault(row.fault)
			host := row.host
			if host == "" {
				host = s.host()
			}
			_, err := Resolve(t.Context(), host+"/no/such:tag", o)
			expectError(t, err, "pulling "+host+"/no/such:tag: ", row.text)
			if row.is != nil && !errors.Is(err, row.is) {
				t.Errorf("error %q is not %q", err, row.is)
			}
			if files := listFiles(t, filepath.Join(o.CacheDir, "oci/blobs")); len(files) > 0 {
				t.Errorf("left over: %v", files)
			}
		})
	}
}
