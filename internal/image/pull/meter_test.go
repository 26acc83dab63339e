package pull

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// drip writes a byte of body at a time, with a pause that is shorter than the
// timeout of the tests.
func drip(w http.ResponseWriter, r *http.Request, body []byte) {
	for _, c := range body {
		if _, err := w.Write([]byte{c}); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-time.After(dripPause):
		}
	}
}

const (
	dripTimeout = 200 * time.Millisecond
	dripPause   = 40 * time.Millisecond
)

func TestMeter(t *testing.T) {
	m := meter{floor: 1000, window: time.Second}
	for i, row := range []struct {
		d    time.Duration
		n    int
		slow bool
	}{
		{time.Second / 2, 1, false},
		{time.Second / 2, 999, false}, // 1000 bytes in a second
		{time.Second - 1, 1, false},
		{1, 0, true}, // one byte in a second
		{time.Hour, 0, false},
		{3 * time.Second, 2999, true},
		{3 * time.Second, 3000, false},
	} {
		err := m.add(row.d, row.n)
		if isSlow(err) != row.slow {
			t.Errorf("step %d: %v", i, err)
		}
	}
}

// TestP4DrippingServer reads a layer from servers that send too little to be of use,
// and too much for a timeout.
func TestP4DrippingServer(t *testing.T) {
	want := makeImage(t, 100_000)
	data := compressedLayer(t, want, 0)
	for name, fault := range map[string]handler{
		"one byte at a time": func(w http.ResponseWriter, r *http.Request, _ http.Handler) { drip(w, r, data) },
		"one byte a request": func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			start := 0
			if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &start); err == nil {
				serveRange(w, r, data, 1)
			}
			send(w, http.StatusOK, data, 1)
		},
		"one byte a range": func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			start := 0
			if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &start); err != nil {
				send(w, http.StatusOK, data, 1)
			}
			<-time.After(dripPause)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, start, len(data)))
			send(w, http.StatusPartialContent, data[start:start+1], 1)
		},
		"one byte and silence": func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			start := 0
			_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &start)
			if start > 0 {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(data)-1, len(data)))
				w.WriteHeader(http.StatusPartialContent)
			}
			_, _ = w.Write(data[start : start+1])
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, o := newServer(t), testOptions(t)
			o.Timeout, o.RetryDelay = dripTimeout, 20*time.Millisecond
			img := mustResolve(t, s.push(t, "app:1", want), o)
			s.injectFault(onBlob(img.Layers[0], fault))
			start := time.Now()
			_, err := readLayer(t.Context(), img.Layers[0])
			expectError(t, err, "less than 1024 bytes per second", "limits.min-rate")
			if took := time.Since(start); !errors.Is(err, ErrNetwork) || took > 10*dripTimeout {
				t.Errorf("%v after %v", err, took)
			}
			if len(partials(t, o)) != 1 {
				t.Error("the partial download is gone")
			}
			s.injectFault(nil)
			expectLayers(t, img, want)
		})
	}
}

// TestP4DrippingMirror reads a layer from the registry after its mirror is too slow.
func TestP4DrippingMirror(t *testing.T) {
	want := makeImage(t, 100_000)
	s, mirror, o := newServer(t), newServer(t), testOptions(t)
	ref := s.push(t, "app:1", want)
	mirror.push(t, "app:1", want)
	o.Timeout = dripTimeout
	o.Mirrors = map[string][]string{s.host(): {"http://" + mirror.host()}}
	img := mustResolve(t, ref, o)
	mirror.injectFault(onBlob(img.Layers[0], func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		drip(w, r, compressedLayer(t, want, 0))
	}))
	expectLayers(t, img, want)
	if s.count("/blobs/") == 0 || mirror.count("/blobs/") != 1 {
		t.Errorf("%d and %d requests", s.count("/blobs/"), mirror.count("/blobs/"))
	}
}

// TestDrippingDocuments resolves from a registry that never completes one of the
// small answers. All have a limit in all.
func TestDrippingDocuments(t *testing.T) {
	page := []byte(strings.Repeat(" ", 60<<10))
	for _, row := range []struct {
		name, path, text string
		status           int
	}{
		{"version endpoint", "/v2/", "no complete answer", 200},
		{"manifest", "/manifests/", "no complete answer", 200},
		{"configuration", "/blobs/", "no complete answer", 200},
		{"error", "/manifests/", "answered 404", 404},
		{"token", "/token", "get token from HOST: network error: no complete answer in 200ms", 200},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, o := newServer(t), testOptions(t)
			o.Timeout = dripTimeout
			ref := s.push(t, "app:1", makeImage(t, 10))
			s.injectFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				switch {
				case r.URL.Path == row.path || row.path != "/v2/" && strings.Contains(r.URL.Path, row.path):
					w.WriteHeader(row.status)
					drip(w, r, page)
				case row.path == "/token":
					requireToken(`Bearer realm="http://`+s.host()+`/token"`)(w, r, next)
				default:
					next.ServeHTTP(w, r)
				}
			})
			start := time.Now()
			_, err := Resolve(t.Context(), ref, o)
			expectError(t, err, strings.ReplaceAll(row.text, "HOST", s.host()))
			if took := time.Since(start); took > 10*dripTimeout {
				t.Errorf("%v after %v", err, took)
			}
		})
	}
}

// TestP4MinRate reads a layer at a rate between two floors.
func TestP4MinRate(t *testing.T) {
	want := makeImage(t, 100_000)
	data := compressedLayer(t, want, 0)
	for rate, fails := range map[int64]bool{1 << 10: false, 1 << 30: true} {
		s, o := newServer(t), testOptions(t)
		o.Timeout, o.MinRate = dripTimeout, rate
		img := mustResolve(t, s.push(t, "app:1", want), o)
		s.injectFault(onBlob(img.Layers[0], func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			for part := data; len(part) > 0; {
				n := min(10_000, len(part))
				if _, err := w.Write(part[:n]); err != nil {
					return
				}
				_ = http.NewResponseController(w).Flush()
				part = part[n:]
				<-time.After(dripPause)
			}
		}))
		if _, err := readLayer(t.Context(), img.Layers[0]); (err != nil) != fails {
			t.Errorf("floor %d: %v", rate, err)
		}
	}
}
