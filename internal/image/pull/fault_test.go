package pull

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

type handler = func(w http.ResponseWriter, r *http.Request, next http.Handler)

// onBlob returns a handler that calls fault for requests for the layer's blob, and
// the registry for all others.
func onBlob(l Layer, fault handler) handler {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.HasSuffix(r.URL.Path, "/blobs/"+string(l.Digest())) {
			fault(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	}
}

// serveRange serves data with support for ranges, and breaks the connection after
// limit bytes of the body.
func serveRange(w http.ResponseWriter, r *http.Request, data []byte, limit int) {
	start := 0
	status := http.StatusOK
	if h := r.Header.Get("Range"); h != "" {
		if _, err := fmt.Sscanf(h, "bytes=%d-", &start); err != nil || start >= len(data) {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(data)-1, len(data)))
		status = http.StatusPartialContent
	}
	send(w, status, data[start:], limit)
}

// send sets the Content-Length of the whole body, and breaks the connection after
// limit bytes.
func send(w http.ResponseWriter, status int, body []byte, limit int) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, err := w.Write(body[:min(limit, len(body))])
	if f, ok := w.(http.Flusher); ok && err == nil {
		f.Flush()
	}
	if limit < len(body) {
		panic(http.ErrAbortHandler)
	}
}

// rangeAnswer breaks the first connection, and answers with the status and the
// Content-Range to requests with a range.
func rangeAnswer(data []byte, status int, contentRange string) func(n int) handler {
	return func(n int) handler {
		return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			if n == 0 {
				send(w, http.StatusOK, data, len(data)/2)
			}
			if r.Header.Get("Range") == "" {
				send(w, http.StatusOK, data, len(data))
				return
			}
			if contentRange != "" {
				w.Header().Set("Content-Range", contentRange)
			}
			w.WriteHeader(status)
		}
	}
}

// TestP4LayerRecovers reads a layer through every fault that causes a retry.
func TestP4LayerRecovers(t *testing.T) {
	const size = 3 << 20
	want := makeImage(t, size)
	data := compressedLayer(t, want, 0)
	for name, fault := range map[string]func(n int) handler{
		"connection dropped in the middle": func(n int) handler {
			return func(w http.ResponseWriter, r *http.Request, _ http.Handler) { serveRange(w, r, data, len(data)/3) }
		},
		"connection dropped before the first byte": func(n int) handler {
			return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				if n < 2 {
					panic(http.ErrAbortHandler)
				}
				serveRange(w, r, data, len(data))
			}
		},
		"ranges ignored": func(n int) handler {
			return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
				send(w, http.StatusOK, data, (n+1)*len(data)/3)
			}
		},
		"ranges refused": func(n int) handler {
			return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				if r.Header.Get("Range") != "" {
					w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
					return
				}
				send(w, http.StatusOK, data, (n+1)*len(data)/3)
			}
		},
		"503 with Retry-After": func(n int) handler {
			return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				if n < 2 {
					w.Header().Set("Retry-After", "0")
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				serveRange(w, r, data, len(data))
			}
		},
		"429": func(n int) handler {
			return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				if n < 3 {
					w.WriteHeader(http.StatusTooManyRequests)
					return
				}
				serveRange(w, r, data, len(data))
			}
		},
		"range of the whole blob": func(n int) handler {
			return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				if n > 0 {
					w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(data)-1, len(data)))
					send(w, http.StatusPartialContent, data, len(data))
					return
				}
				send(w, http.StatusOK, data, len(data)/2)
			}
		},
		"no range in the response": rangeAnswer(data, http.StatusPartialContent, ""),
		"range of another blob":    rangeAnswer(data, http.StatusPartialContent, "bytes 5-9/10"),
		"range without a number":   rangeAnswer(data, http.StatusPartialContent, "bytes x"),
		"400 to ranges":            rangeAnswer(data, http.StatusBadRequest, ""),
		"501 to ranges":            rangeAnswer(data, http.StatusNotImplemented, ""),
		"a piece of the range each time": func(n int) handler {
			return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				if n == 0 {
					send(w, http.StatusOK, data, 1000)
				}
				var start int
				if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &start); err != nil {
					t.Error(err)
				}
				end := min(start+500_000, len(data))
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/*", start, end-1))
				send(w, http.StatusPartialContent, data[start:end], len(data))
			}
		},
		"520": func(n int) handler {
			return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				if n == 0 {
					w.WriteHeader(520)
					return
				}
				serveRange(w, r, data, len(data))
			}
		},
		"redirect to storage": func(n int) handler {
			return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				if r.URL.RawQuery == "" {
					http.Redirect(w, r, r.URL.Path+"?signature=secret", http.StatusTemporaryRedirect)
					return
				}
				serveRange(w, r, data, len(data)/2)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, o := newServer(t), testOptions(t)
			var notices atomic.Int64
			o.Notice = func(string) { notices.Add(1) }
			img := mustResolve(t, s.push(t, "app:1", want), o)
			var n atomic.Int64
			s.injectFault(onBlob(img.Layers[0], func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				fault(int(n.Add(1)-1))(w, r, next)
			}))
			expectLayers(t, img, want)
			if n.Load() < 2 || notices.Load() == 0 {
				t.Errorf("%d requests, %d notices: nothing was retried", n.Load(), notices.Load())
			}
			expectIntactBlobs(t, o)
			if left := partials(t, o); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
		})
	}
}

// TestP4ProgressResetsFailures causes more failures than the limit of consecutive
// ones, with some progress between them.
func TestP4ProgressResetsFailures(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	o.Retries = 1
	want := makeImage(t, 6<<20)
	data := compressedLayer(t, want, 0)
	img := mustResolve(t, s.push(t, "app:1", want), o)
	s.injectFault(onBlob(img.Layers[0], func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		serveRange(w, r, data, 400_000)
	}))
	expectLayers(t, img, want)
	if n := s.count("/blobs/"); n < 15 {
		t.Errorf("%d requests: nothing was dropped", n)
	}
	retry := &retrier{retries: 2, delay: time.Nanosecond, notice: func(string) {}}
	for i, row := range []struct {
		progress bool
		fails    bool
	}{{false, false}, {false, false}, {false, true}, {true, false}, {false, false}, {false, true}, {true, false}} {
		if row.progress {
			retry.progress()
		}
		if err := retry.wait(t.Context(), "test", io.ErrUnexpectedEOF); (err != nil) != row.fails {
			t.Errorf("failure %d: %v", i, err)
		}
	}
}

// TestP4LayerFails reads a layer through every fault that is final. The error
// names the layer.
func TestP4LayerFails(t *testing.T) {
	want := makeImage(t, 1<<20)
	data := compressedLayer(t, want, 0)
	wrong := bytes.Clone(data)
	wrong[len(wrong)/2] ^= 1
	for _, row := range []struct {
		name  string
		fault handler
		text  string
		is    error
		keeps bool
	}{
		{"wrong bytes", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			send(w, http.StatusOK, wrong, len(wrong))
		}, "digest mismatch", nil, false},
		{"Content-Length too small", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			send(w, http.StatusOK, data[:1000], 1000)
		}, "server sends 1000 bytes", nil, false},
		{"Content-Length too large", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			send(w, http.StatusOK, append(bytes.Clone(data), 1), len(data)+1)
		}, "server sends", nil, false},
		{"endless without Content-Length", func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			for r.Context().Err() == nil {
				if _, err := w.Write(data); err != nil {
					return
				}
			}
		}, "server sends more than", nil, false},
		{"always short", func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			_, _ = w.Write(data[:1000])
			_ = http.NewResponseController(w).Flush() // so that there is no Content-Length
		}, "unexpected EOF", ErrNetwork, true},
		{"dropped every time", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			send(w, http.StatusOK, data, 300_000)
		}, "unexpected EOF", ErrNetwork, true},
		{"500 every time", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.WriteHeader(http.StatusInternalServerError)
		}, "500", nil, false},
		{"gone", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.WriteHeader(http.StatusNotFound)
		}, "404", ErrNotFound, false},
		{"forbidden with an escape sequence", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED","message":"go\u001b[2Jaway\n\n"}]}`)
		}, "go [2Jaway", ErrUnauthorized, false},
		{"Retry-After of a day", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("Retry-After", "86400")
			w.WriteHeader(http.StatusTooManyRequests)
		}, "try again in 24h", nil, false},
		{"endless redirects", func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		}, "redirects", nil, false},
		{"redirect to a file", func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		}, "refuse redirect", nil, false},
		{"endless header", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
		}, "header", nil, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, o := newServer(t), testOptions(t)
			img := mustResolve(t, s.push(t, "app:1", want), o)
			before := listFiles(t, o.CacheDir)
			s.injectFault(onBlob(img.Layers[0], row.fault))
			_, err := readLayer(t.Context(), img.Layers[0])
			expectError(t, err, "layer "+string(img.Layers[0].Digest())+": ", row.text)
			if strings.Count(err.Error(), string(img.Layers[0].Digest())) != 1 {
				t.Errorf("error %q does not name the layer once", err)
			}
			if row.is != nil && !errors.Is(err, row.is) {
				t.Errorf("error %q is not %q", err, row.is)
			}
			if e, ok := errors.AsType[*LayerError](err); !ok || e.Digest != img.Layers[0].Digest() {
				t.Errorf("error is %#v", err)
			}
			if kept := len(partials(t, o)) > 0; kept != row.keeps {
				t.Errorf("partial kept: %v, want %v", kept, row.keeps)
			}
			if !row.keeps && fmt.Sprint(listFiles(t, o.CacheDir)) != fmt.Sprint(before) {
				t.Errorf("left over: %v", listFiles(t, o.CacheDir))
			}
			s.injectFault(nil)
			expectLayers(t, img, want) // a later read succeeds
			expectIntactBlobs(t, o)
			if left := partials(t, o); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
		})
	}
}

// TestP4NextOpenResumes resumes the partial file of a failed or killed download.
func TestP4NextOpenResumes(t *testing.T) {
	want := makeImage(t, 1<<20)
	data := compressedLayer(t, want, 0)
	for _, row := range []struct {
		name    string
		partial []byte
		from    string // Range of the first request; "none" without a request
	}{
		{"half", data[:len(data)/2], fmt.Sprintf("bytes=%d-", len(data)/2)},
		{"whole, but not published", data, "none"},
		{"empty", nil, ""},
		{"damaged", append(make([]byte, 1000), data[1000:5000]...), "bytes=5000-"},
		{"too long", append(bytes.Clone(data), 1, 2, 3), ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, o := newServer(t), testOptions(t)
			img := mustResolve(t, s.push(t, "app:1", want), o)
			if err := os.WriteFile(OpenCache(o.CacheDir).partials.path(img.Layers[0].Digest()), row.partial, 0o600); err != nil {
				t.Fatal(err)
			}
			first := "none"
			s.injectFault(onBlob(img.Layers[0], func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				if first == "none" {
					first = r.Header.Get("Range")
				}
				serveRange(w, r, data, len(data))
			}))
			expectLayers(t, img, want)
			if first != row.from {
				t.Errorf("first request for %q, want %q", first, row.from)
			}
			expectIntactBlobs(t, o)
			if left := partials(t, o); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
		})
	}
}

// TestP4CancelReturnsAtOnce cancels the context during each kind of wait.
func TestP4CancelReturnsAtOnce(t *testing.T) {
	want := makeImage(t, 1<<20)
	data := compressedLayer(t, want, 0)
	for name, fault := range map[string]handler{
		"no answer": func(_ http.ResponseWriter, r *http.Request, _ http.Handler) { <-r.Context().Done() },
		"body that stops": func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			w.Header().Set("Content-Length", strconv.Itoa(len(data)))
			_, _ = w.Write(data[:200_000])
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
		"back-off": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("Retry-After", "60")
			w.WriteHeader(http.StatusServiceUnavailable)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, o := newServer(t), testOptions(t)
			img := mustResolve(t, s.push(t, "app:1", want), o)
			before := listFiles(t, o.CacheDir)
			ctx, cancel := context.WithCancel(t.Context())
			s.injectFault(onBlob(img.Layers[0], func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				time.AfterFunc(50*time.Millisecond, cancel)
				fault(w, r, next)
			}))
			start := time.Now()
			_, err := readLayer(ctx, img.Layers[0])
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("took %v", took)
			}
			if after := listFiles(t, o.CacheDir); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("left over: %v", after)
			}
		})
	}
}

// TestResolveEndsWithItsContext resolves from a registry that never responds.
func TestResolveEndsWithItsContext(t *testing.T) {
	for _, part := range []string{"/v2/", "/manifests/", "/blobs/"} {
		t.Run(part, func(t *testing.T) {
			s, o := newServer(t), testOptions(t)
			ref := s.push(t, "app:1", makeImage(t, 10))
			ctx, cancel := context.WithCancel(t.Context())
			s.injectFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if r.URL.Path != part && !strings.Contains(r.URL.Path[3:], part) {
					next.ServeHTTP(w, r)
					return
				}
				cancel()
				<-r.Context().Done()
			})
			start := time.Now()
			_, err := Resolve(ctx, ref, o)
			if !errors.Is(err, context.Canceled) || time.Since(start) > time.Second {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		})
	}
}

// TestP4SilentServerTimesOut reads from a server that stops in the middle.
func TestP4SilentServerTimesOut(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	o.Timeout, o.Retries = 50*time.Millisecond, 1
	want := makeImage(t, 1<<20)
	data := compressedLayer(t, want, 0)
	img := mustResolve(t, s.push(t, "app:1", want), o)
	s.injectFault(onBlob(img.Layers[0], func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data[:1000])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	_, err := readLayer(t.Context(), img.Layers[0])
	expectError(t, err, "no data for too long")
	if !errors.Is(err, ErrNetwork) {
		t.Errorf("error %v is not of the network", err)
	}
}

// TestP4SlowReaderDoesNotTimeOut pauses between reads for longer than the
// registry's timeout.
func TestP4SlowReaderDoesNotTimeOut(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	o.Timeout = 300 * time.Millisecond
	want := makeImage(t, 8<<20)
	img := mustResolve(t, s.push(t, "app:1", want), o)
	r, err := img.Layers[0].Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, 300_000)); err != nil {
		t.Fatal(err)
	}
	<-time.After(2 * o.Timeout)
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Error(err)
	}
	if n := s.count("/blobs/" + string(img.Layers[0].Digest())); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}
