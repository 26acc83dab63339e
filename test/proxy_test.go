//go:build e2e

package e2e

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A proxy forwards requests to the registry over a slow or interrupted network.
type proxy struct {
	server *httptest.Server

	// bytesPerSecond bounds the speed of each blob; 0 means no bound.
	bytesPerSecond int64
	// cutAfter is the number of bytes of a blob after which the connection is cut, if the request was for the whole
	// blob; 0 means never.
	cutAfter int64

	// underway is closed when the first mebibyte of a blob has passed.
	underway      chan struct{}
	once          sync.Once
	cuts, resumed atomic.Int64
}

func newProxy(t *testing.T) *proxy {
	t.Helper()
	p := &proxy{underway: make(chan struct{})}
	target := &url.URL{Scheme: "http", Host: suite.registry}
	reverse := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(response *http.Response) error {
			if strings.Contains(response.Request.URL.Path, "/blobs/sha256:") && response.ContentLength > 1<<20 {
				p.worsen(response)
			}
			return nil
		},
		FlushInterval: -1,
		// The default handler logs clients that close the connection, which the tests cause.
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	p.server = httptest.NewServer(reverse)
	t.Cleanup(p.server.Close)
	return p
}

func (p *proxy) reference(image string) string {
	return strings.TrimPrefix(p.server.URL, "http://") + "/demo/" + image
}

func (p *proxy) worsen(response *http.Response) {
	body := &badBody{ReadCloser: response.Body, proxy: p, done: response.Request.Context().Done()}
	if response.Request.Header.Get("Range") != "" {
		p.resumed.Add(1)
	} else {
		body.cutAfter = p.cutAfter
	}
	response.Body = body
}

// badBody is the body of a blob on the proxy's network.
type badBody struct {
	io.ReadCloser
	proxy    *proxy
	done     <-chan struct{}
	read     int64
	cutAfter int64
}

func (b *badBody) Read(buf []byte) (int, error) {
	buf = buf[:min(len(buf), 64<<10)]
	if b.cutAfter > 0 && b.read >= b.cutAfter {
		b.proxy.cuts.Add(1)
		return 0, errors.New("the line is cut")
	}
	n, err := b.ReadCloser.Read(buf)
	b.read += int64(n)
	if b.read > 1<<20 {
		b.proxy.once.Do(func() { close(b.proxy.underway) })
	}
	if rate := b.proxy.bytesPerSecond; rate > 0 {
		timer := time.NewTimer(time.Duration(int64(n) * int64(time.Second) / rate))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-b.done:
		}
	}
	return n, err
}
