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
	// defaultTimeout is how long a registry may send nothing.
	defaultTimeout = 60 * time.Second
)

// newTransport returns a transport with the trusted authorities of tlsConfig.
func newTransport(tlsConfig *tls.Config, timeout time.Duration) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        tlsConfig.Clone(),
		TLSHandshakeTimeout:    dialTimeout,
		ResponseHeaderTimeout:  timeout,
		IdleConnTimeout:        dialTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // digests are those of the bytes as stored
	}
}

// newTLSConfig returns a configuration that trusts the system's certificate
// authorities and those in the PEM file caCert. If caCert is "", there is no file.
func newTLSConfig(caCert string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if caCert == "" {
		return c, nil
	}
	var err error
	if c.RootCAs, err = x509.SystemCertPool(); err != nil {
		return nil, fmt.Errorf("read the system's certificates: %w", err)
	}
	pem, err := readFile(caCert, maxCACert)
	if err != nil {
		return nil, err
	}
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no PEM certificate in it", caCert)
	}
	return c, nil
}

// readFile returns the content of a file. It returns an error if the file has more
// than limit bytes.
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

// readAll returns all bytes of r. It returns an error if there are more than limit.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	return data, err
}

// redirectError reports a redirect that this package does not follow.
type redirectError struct{ text string }

func (e *redirectError) Error() string { return e.text }

// checkRedirect implements http.Client's CheckRedirect. It allows redirects to
// other hosts, such as blob storage, because the gate judges their addresses. It
// refuses redirects from https to http.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return &redirectError{fmt.Sprintf("more than %d redirects", maxRedirects)}
	}
	from := via[len(via)-1].URL
	if req.URL.Scheme != "https" && (req.URL.Scheme != "http" || from.Scheme == "https") {
		return &redirectError{fmt.Sprintf("refuse redirect from %s to %s", from.Scheme, printable(req.URL.Scheme))}
	}
	return nil
}

// isLoopback reports whether hostname is a name or an address of this host (RFC
// 6761, section 6.3). Plain http to it does not cross a network.
func isLoopback(hostname string) bool {
	hostname = strings.TrimSuffix(strings.ToLower(hostname), ".")
	if hostname == "localhost" || strings.HasSuffix(hostname, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(hostname)
	return err == nil && a.Unmap().IsLoopback()
}

// hostname returns host without its port and brackets.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}

// timeoutBody is a response body whose reads fail if the server sends nothing for
// the timeout. Close calls release.
type timeoutBody struct {
	io.ReadCloser
	timer   *time.Timer
	whole   *time.Timer   // ends the request in any case, unless stopped
	waited  time.Duration // for the header of the response
	timeout time.Duration
	cause   func() error // returns the cause of the request's cancellation, or nil
	release func()
}

// doWithTimeout sends req. If the server sends nothing for timeout, or not all in
// twice that time, the request or a read of its body fails. doWithTimeout calls release once: after an error,
// or at the Close of the body.
func doWithTimeout(client *http.Client, req *http.Request, timeout time.Duration, release func()) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(timeout, func() { cancel(errStalled) })
	whole := time.AfterFunc(2*timeout, func() { cancel(errIncomplete(2 * timeout)) })
	start := time.Now()
	end := sync.OnceFunc(func() {
		timer.Stop()
		whole.Stop()
		cancel(nil)
		release()
	})
	cause := func() error { return context.Cause(ctx) }
	resp, err := client.Do(req.WithContext(ctx))
	if err != nil {
		if c := cause(); c != nil {
			err = c
		}
		end()
		return nil, err
	}
	timer.Stop()
	resp.Body = &timeoutBody{resp.Body, timer, whole, time.Since(start), timeout, cause, end}
	return resp, nil
}

func (w *timeoutBody) Read(p []byte) (int, error) {
	w.timer.Reset(w.timeout)
	n, err := w.ReadCloser.Read(p)
	w.timer.Stop() // the time between reads is not the server's
	if err != nil && !errors.Is(err, io.EOF) {
		if c := w.cause(); c != nil {
			err = c
		}
	}
	return n, err
}

// Close implements io.Closer.
func (w *timeoutBody) Close() error {
	defer w.release()
	return w.ReadCloser.Close()
}
