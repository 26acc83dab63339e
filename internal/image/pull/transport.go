package pull

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	userAgent      = "banger"
	maxRedirects   = 10
	maxHeaderBytes = 256 << 10
	dialTimeout    = 30 * time.Second
	maxCACert      = 4 << 20 // bytes of a PEM file
	// defaultTimeout is how long a registry may be silent.
	defaultTimeout = 60 * time.Second
)

// newTransport makes connections that trust the system's authorities and
// those in the PEM file caCert, if any.
func newTransport(caCert string, timeout time.Duration) (*http.Transport, error) {
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout:    dialTimeout,
		ResponseHeaderTimeout:  timeout,
		IdleConnTimeout:        dialTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // digests are of the bytes as stored
	}
	if caCert == "" {
		return t, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's certificates: %w", err)
	}
	pem, err := readFile(caCert, maxCACert)
	if err != nil {
		return nil, err
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no PEM certificate in it", caCert)
	}
	t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return t, nil
}

// readFile reads a file of the user's of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readAll(f, limit)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, nil
}

// readAll is io.ReadAll with a limit in bytes, over which it fails.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	return data, err
}

// checkRedirect follows a registry to its blob storage, but neither from
// https to http nor from elsewhere to what only this host can reach.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	from := via[len(via)-1].URL
	if req.URL.Scheme != "https" && (req.URL.Scheme != "http" || from.Scheme == "https") {
		return fmt.Errorf("refuse redirect from %s to %s", from.Scheme, clean(req.URL.Scheme))
	}
	if isLocal(req.URL.Hostname()) && !isLocal(via[0].URL.Hostname()) {
		return fmt.Errorf("refuse redirect to %s", clean(req.URL.Hostname()))
	}
	return nil
}

// isLocal reports addresses that mean this host or its link, where services
// listen that trust whoever can reach them.
func isLocal(hostname string) bool {
	if isLoopback(hostname) {
		return true
	}
	a, err := netip.ParseAddr(hostname)
	return err == nil && (a.IsUnspecified() || a.Unmap().IsLinkLocalUnicast())
}

// isLoopback reports hosts that are this one by name or address (RFC 6761,
// section 6.3); nobody can listen in on plain http to them.
func isLoopback(hostname string) bool {
	hostname = strings.TrimSuffix(strings.ToLower(hostname), ".")
	if hostname == "localhost" || strings.HasSuffix(hostname, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(hostname)
	return err == nil && a.Unmap().IsLoopback()
}

// hostname drops the port from host or host:port.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}

// agent names the client in each request.
type agent struct{ inner http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (a agent) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Header.Get("User-Agent") == "" {
		req = req.Clone(req.Context())
		req.Header.Set("User-Agent", userAgent)
	}
	return a.inner.RoundTrip(req)
}

// watched is a response body that ends with an error when nothing comes for
// too long. Close gives back what the request held.
type watched struct {
	io.ReadCloser
	timer   *time.Timer
	timeout time.Duration
	cause   func() error // why the request ended, if it did
	release func()
}

// watch sends req and guards its body. release is called once: on an error,
// or by the body's Close.
func watch(client *http.Client, req *http.Request, timeout time.Duration, release func()) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(timeout, func() { cancel(errStalled) })
	end := sync.OnceFunc(func() {
		timer.Stop()
		cancel(nil)
		release()
	})
	cause := func() error {
		if ctx.Err() == nil {
			return nil
		}
		return context.Cause(ctx)
	}
	resp, err := client.Do(req.WithContext(ctx))
	if err != nil {
		if c := cause(); c != nil {
			err = c
		}
		end()
		return nil, err
	}
	timer.Stop()
	resp.Body = &watched{resp.Body, timer, timeout, cause, end}
	return resp, nil
}

func (w *watched) Read(p []byte) (int, error) {
	w.timer.Reset(w.timeout)
	n, err := w.ReadCloser.Read(p)
	w.timer.Stop() // it is not the server who is slow between reads
	if err != nil && !errors.Is(err, io.EOF) {
		if c := w.cause(); c != nil {
			err = c
		}
	}
	return n, err
}

// Close implements io.Closer.
func (w *watched) Close() error {
	defer w.release()
	return w.ReadCloser.Close()
}
