package pull

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// readRecovering reads a layer, and reads it again as package build does.
func readRecovering(ctx context.Context, l Layer) ([]byte, error) {
	for {
		data, err := readLayer(ctx, l)
		if !MayRecover(err) {
			return data, err
		}
	}
}

func expectRecoveredLayers(t *testing.T, got *Image, want v1.Image) {
	t.Helper()
	for i, l := range got.Layers {
		data, err := readRecovering(t.Context(), l)
		if err != nil || !bytes.Equal(data, compressedLayer(t, want, i)) {
			t.Errorf("layer %d: %d bytes, %v", i, len(data), err)
		}
	}
}

// TestP1MirrorWithWrongContent pulls past a mirror that answers 200 and sends
// something else.
func TestP1MirrorWithWrongContent(t *testing.T) {
	want := makeImage(t, 300_000)
	data := compressedLayer(t, want, 0)
	wrong := bytes.Clone(data)
	wrong[len(wrong)/2] ^= 1
	onLayer := func(fault http.HandlerFunc) handler {
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if strings.HasSuffix(r.URL.Path, layerName(t, want)) {
				fault(w, r)
				return
			}
			next.ServeHTTP(w, r)
		}
	}
	const page = "<html>sign in"
	for _, row := range []struct {
		name   string
		mirror handler
		notice string
	}{
		{"page for everything", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, page)
		}, "web page"},
		{"JSON that is no manifest", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				next.ServeHTTP(w, r)
				return
			}
			_, _ = io.WriteString(w, `{"message":"sign in"}`)
		}, "schema version"},
		{"page for all blobs", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if !strings.Contains(r.URL.Path, "/blobs/") {
				next.ServeHTTP(w, r)
				return
			}
			_, _ = io.WriteString(w, page)
		}, "sends 13 bytes"},
		{"page of any length for all blobs", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if !strings.Contains(r.URL.Path, "/blobs/") {
				next.ServeHTTP(w, r)
				return
			}
			_, _ = io.WriteString(w, page)
			_ = http.NewResponseController(w).Flush()
		}, ""},
		{"wrong bytes", onLayer(func(w http.ResponseWriter, _ *http.Request) { send(w, 200, wrong, len(wrong)) }), "digest mismatch"},
		{"short", onLayer(func(w http.ResponseWriter, _ *http.Request) { send(w, 200, data[:1000], 1000) }), "sends 1000 bytes"},
		{"short and of any length", onLayer(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(wrong[:len(wrong)*2/3])
			_ = http.NewResponseController(w).Flush()
		}), "unexpected EOF"},
		{"long and of any length", onLayer(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(data)
			_, _ = w.Write(data)
		}), "sends more than"},
		{"cut", onLayer(func(w http.ResponseWriter, _ *http.Request) { send(w, 200, data, len(data)/2) }), "unexpected EOF"},
		{"empty", onLayer(func(w http.ResponseWriter, _ *http.Request) { send(w, 200, data, 0) }), "unexpected EOF"}, // containerd/containerd#9552
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
			expectRecoveredLayers(t, mustResolve(t, ref, o), want)
			expectIntactBlobs(t, o)
			if left := partials(t, o); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
			if all := strings.Join(notices, "\n"); !strings.Contains(all, mirror.host()) || !strings.Contains(all, row.notice) {
				t.Errorf("notices %q", notices)
			}
			if n := mirror.count(layerName(t, want)); n > 1 {
				t.Errorf("the mirror was asked %d times", n)
			}
		})
	}
}

func layerName(t *testing.T, img v1.Image) string {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	h, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	return "/blobs/" + h.String()
}

// TestP3WrongOnce has a registry whose first answer to each request is wrong.
func TestP3WrongOnce(t *testing.T) {
	want := makeImage(t, 300_000)
	for name, spoil := range map[string]func(w http.ResponseWriter, body []byte){
		"one bit":      func(w http.ResponseWriter, body []byte) { body[len(body)/2] ^= 1; send(w, 200, body, len(body)) },
		"page":         func(w http.ResponseWriter, _ []byte) { _, _ = io.WriteString(w, "<html>") },
		"half of it":   func(w http.ResponseWriter, body []byte) { send(w, 200, body[:len(body)/2], len(body)) },
		"server error": func(w http.ResponseWriter, _ []byte) { w.WriteHeader(http.StatusBadGateway) },
		"busy":         func(w http.ResponseWriter, _ []byte) { w.WriteHeader(http.StatusTooManyRequests) },
	} {
		t.Run(name, func(t *testing.T) {
			s, o := newServer(t), testOptions(t)
			ref := s.push(t, "app:1", want)
			seen := map[string]bool{}
			o.MaxConnections = 1
			s.injectFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				isTag := strings.HasSuffix(r.URL.Path, "/manifests/1") && name == "one bit" // nothing gives its digest
				if seen[r.URL.Path] || r.URL.Path == "/v2/" || isTag {
					next.ServeHTTP(w, r)
					return
				}
				seen[r.URL.Path] = true
				rec := httptest.NewRecorder()
				next.ServeHTTP(rec, r)
				spoil(w, rec.Body.Bytes())
			})
			expectRecoveredLayers(t, mustResolve(t, ref, o), want)
			expectIntactBlobs(t, o)
		})
	}
}

// TestP3AlwaysWrong counts the requests for blobs that are always wrong.
func TestP3AlwaysWrong(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	want := makeImage(t, 300_000)
	img := mustResolve(t, s.push(t, "app:1", want), o)
	wrong := compressedLayer(t, want, 0)
	wrong[0] ^= 1
	s.injectFault(onBlob(img.Layers[0], func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { send(w, 200, wrong, len(wrong)) }))
	_, err := readRecovering(t.Context(), img.Layers[0])
	expectError(t, err, "digest mismatch", "sent by "+s.host())
	if n := s.count("/blobs/"); n != 2 || !IsCorrupt(err) {
		t.Errorf("%d requests, want 2; error %v", n, err)
	}
}

// TestErrorThatCounts has a mirror and a registry of which only one answers.
func TestErrorThatCounts(t *testing.T) {
	status := func(code int) handler {
		return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(code) }
	}
	for _, row := range []struct {
		name             string
		mirror, registry handler // nil is unreachable
		is               error
		from             string
	}{
		{"wrong tag, no route to the registry", status(404), nil, ErrNotFound, "mirror"},
		{"mirror refuses, no route to the registry", status(403), nil, ErrUnauthorized, "mirror"},
		{"both answer", status(404), status(403), ErrUnauthorized, "registry"},
		{"only the registry answers", nil, status(404), ErrNotFound, "registry"},
		{"none answers", nil, nil, ErrNetwork, "refused"},
	} {
		t.Run(row.name, func(t *testing.T) {
			hosts := map[string]string{}
			for name, h := range map[string]handler{"mirror": row.mirror, "registry": row.registry} {
				s := newServer(t)
				s.injectFault(h)
				hosts[name] = s.host()
				if h == nil {
					s.Close()
				}
			}
			o := testOptions(t)
			o.Retries = 1
			var notices []string
			o.Notice = func(s string) { notices = append(notices, s) }
			o.Mirrors = map[string][]string{hosts["registry"]: {"http://" + hosts["mirror"]}}
			_, err := Resolve(t.Context(), hosts["registry"]+"/app:none", o)
			from := row.from
			if h := hosts[from]; h != "" {
				from = h + " answered"
			}
			expectError(t, err, from)
			if !errors.Is(err, row.is) {
				t.Errorf("error %v", err)
			}
			all := strings.Join(notices, "\n")
			if !strings.Contains(all, hosts["mirror"]) || row.from == "mirror" && !strings.Contains(all, "registry "+hosts["registry"]) {
				t.Errorf("notices %q", notices)
			}
		})
	}
}

// TestPermanentFaultsAreNotRetried counts the requests for answers that stay as they
// are.
func TestPermanentFaultsAreNotRetried(t *testing.T) {
	bomb := func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("X", strings.Repeat("x", 1<<20))
	}
	redirect := func(to string) handler {
		return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}
	}
	for _, row := range []struct {
		name  string
		fault handler
		max   int // requests
		text  string
	}{
		{"header bomb", bomb, 1, "header"},
		{"loop", func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		}, maxRedirects, "redirects"},
		{"redirect to a file", redirect("file:///etc/passwd"), 1, "refuse redirect"},
		{"redirect to no URL", redirect("http://[::1"), 1, "Location"},
		{"redirect to nowhere", redirect(""), 1, "307"},
	} {
		for _, kind := range []string{"/manifests/", "/blobs/"} {
			for name, start := range map[string]func(*httptest.Server){
				"http":  (*httptest.Server).Start,
				"http2": func(s *httptest.Server) { s.EnableHTTP2 = true; s.StartTLS() },
			} {
				t.Run(row.name+kind+name, func(t *testing.T) {
					s, o := startServer(t, start), testOptions(t)
					ref := s.push(t, "app:1", makeImage(t, 10))
					if s.TLS != nil {
						o.CACert = certificateOf(t, s)
					}
					s.injectFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
						if !strings.Contains(r.URL.Path, kind) {
							next.ServeHTTP(w, r)
							return
						}
						row.fault(w, r, next)
					})
					_, err := Resolve(t.Context(), ref, o)
					expectError(t, err, row.text)
					if n := s.count(kind); n > row.max {
						t.Errorf("%d requests, want %d; error %v", n, row.max, err)
					}
				})
			}
		}
	}
}
