package pull

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"syscall"
	"time"

	"github.com/banger-vm/banger/internal/base/digest"
)

// The errors for which a caller has a hint for the user.
var (
	// ErrNotFound means that the registry does not have the image.
	ErrNotFound = errors.New("not found")
	// ErrNoImage is ErrNotFound for an archive, a layout or the Docker daemon,
	// which need no login.
	ErrNoImage = fmt.Errorf("%w", ErrNotFound)
	// ErrUnauthorized means that the registry requires other credentials.
	// Several registries also return it if a repository does not exist.
	ErrUnauthorized = errors.New("not authorized")
	// ErrAnonymous means that a registry refused a request with which no
	// credentials were sent. The error is also ErrUnauthorized.
	ErrAnonymous = errors.New("no credentials")
	// ErrPlainHTTP means that the registry sent an http response to an https
	// request.
	ErrPlainHTTP = errors.New("registry speaks plain http")
	// ErrNetwork means that there was no connection to the registry, or that
	// the connection broke.
	ErrNetwork = errors.New("network error")
)

// A LayerError is an error of reading one layer.
type LayerError struct {
	Digest digest.Digest // "" if not known
	DiffID digest.DiffID // names the layer if Digest is not known
	Err    error
}

func (e *LayerError) Error() string {
	name := string(e.Digest)
	if name == "" {
		name = string(e.DiffID)
	}
	if name == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("layer %s: %v", name, e.Err)
}

func (e *LayerError) Unwrap() error { return e.Err }

// A LimitError reports an image that exceeds a limit.
type LimitError struct {
	What   string // the limited object and its amount
	Limit  int64
	Option string // the key in the configuration file that sets the limit
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%s, the limit is %d (set by %s)", e.What, e.Limit, e.Option)
}

func tooManyLayers(have, limit int) error {
	return &LimitError{fmt.Sprintf("image has %d layers", have), int64(limit), "limits.layers"}
}

func tooLarge(document string, size, limit int64) error {
	return &LimitError{fmt.Sprintf("%s has %d bytes", document, size), limit, "limits.json"}
}

// A PlatformError reports that an image is not available for a platform.
type PlatformError struct {
	Want string   // os/arch[/variant]
	Have []string // in the order of the image's index, each once
}

func (e *PlatformError) Error() string {
	if len(e.Have) == 0 {
		return fmt.Sprintf("no image for platform %s", e.Want)
	}
	return fmt.Sprintf("no image for platform %s (available: %s)", e.Want, strings.Join(e.Have, ", "))
}

// anonymousError is an ErrUnauthorized that is also ErrAnonymous.
type anonymousError struct{ error }

// Unwrap returns the error itself.
func (e *anonymousError) Unwrap() error { return e.error }

// Is reports whether target is ErrAnonymous.
func (e *anonymousError) Is(target error) bool { return target == ErrAnonymous }

// contentError reports a response whose content is wrong. A second request may bring
// the right one.
type contentError struct{ error }

// Unwrap returns the error itself.
func (e *contentError) Unwrap() error { return e.error }

// named adds the endpoint's host to an error about the content of its response.
func (e *endpoint) named(err error) error { return fmt.Errorf("%s: %w", e.host, err) }

// hostsError is the error of a request that failed at all endpoints.
type hostsError struct {
	last   error // of the registry itself
	answer error // the last response of a mirror, if there was no connection to the registry
}

func (e *hostsError) add(err error) {
	if _, ok := errors.AsType[*statusError](e.last); ok {
		e.answer = e.last
	}
	if !isNetwork(err) {
		e.answer = nil
	}
	e.last = err
}

// cause returns the error to show: the one of a server that answered, if any.
func (e *hostsError) cause() error { return cmp.Or(e.answer, e.last) }

func (e *hostsError) Error() string { return e.cause().Error() }

// Unwrap returns the registry's own error, which decides whether the request is
// repeated.
func (e *hostsError) Unwrap() error { return e.last }

// statusError is a response of a server whose status is not a success.
type statusError struct {
	host       string // of the server, with the port if any; "" for a socket
	status     int
	text       string        // of the server, made printable; may be empty
	retryAfter time.Duration // Retry-After, 0 if missing
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("%s answered %d", cmp.Or(printable(e.host), "server"), e.status)
	if name := http.StatusText(e.status); name != "" {
		s += " " + name
	}
	if e.text != "" {
		s += ": " + e.text
	}
	return s
}

func (e *statusError) temporary() bool {
	// An unknown status counts as the first one of its class (RFC 9110, section
	// 15); networks of distribution use 520 to 530.
	return e.status == http.StatusRequestTimeout || e.status == http.StatusTooManyRequests ||
		e.status >= http.StatusInternalServerError
}

// maxErrorBody is the maximum number of bytes to read of an error's body.
const maxErrorBody = 64 << 10

// checkStatus returns a *statusError if the response has none of the wanted status
// codes. In this case it reads and closes the body.
func checkStatus(resp *http.Response, want ...int) error {
	for _, code := range want {
		if resp.StatusCode == code {
			return nil
		}
	}
	defer resp.Body.Close()
	e := newStatusError(resp)
	// If the body cannot be read, the status alone is the error.
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	e.text = errorText(resp.Header.Get("Content-Type"), body)
	return e
}

// newStatusError returns the error of a response without its body.
func newStatusError(resp *http.Response) *statusError {
	e := &statusError{status: resp.StatusCode, retryAfter: retryAfter(resp.Header.Get("Retry-After"))}
	if resp.Request != nil {
		e.host = resp.Request.URL.Host
	}
	return e
}

// classify wraps err with the matching sentinel error. It removes addresses and
// URLs, because the caller adds the source, and a URL's query may have secrets.
func classify(err error) error {
	if e, ok := errors.AsType[*hostsError](err); ok {
		err = e.cause()
	}
	if err == nil || errors.Is(err, context.Canceled) || isClassified(err) {
		return err
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*statusError](err); ok {
		return classifyStatus(e, err)
	}
	if errors.Is(err, http.ErrSchemeMismatch) {
		return ErrPlainHTTP
	}
	if isHeaderFault(err) {
		return fmt.Errorf("response header is too large or damaged: %w", err)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && isRefused(op) {
		return op.Err
	}
	if isNetwork(err) {
		return fmt.Errorf("%w: %w", ErrNetwork, networkCause(err))
	}
	return err
}

func isClassified(err error) bool {
	for _, target := range []error{ErrNotFound, ErrUnauthorized, ErrPlainHTTP, ErrNetwork} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

func classifyStatus(e *statusError, err error) error {
	switch e.status {
	case http.StatusNotFound:
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w: %w", ErrUnauthorized, err)
	}
	return err
}

// errForeign reports that a foreign layer is missing from its registry.
var errForeign = errors.New("foreign layer, its content is not in the registry")

// errStalled reports that a connection was closed because the server sent nothing.
var errStalled = errors.New("no data for too long")

// isNetwork reports whether err is an error of the network. Certificate errors are
// not, because a retry or a working network does not resolve them.
func isNetwork(err error) bool {
	// A url.Error implements net.Error, even if its cause is a redirect, for example.
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if isCertificate(err) || isRefused(err) {
		return false
	}
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return true
	}
	// Errno implements net.Error, even if the error is that of a file.
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return isConnection(err)
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, errStalled) ||
		isSlow(err) || isHTTP2(err)
}

func isSlow(err error) bool {
	_, ok := errors.AsType[*slowError](err)
	return ok
}

// isConnection reports whether err is an error of a socket. Files of the cache
// return other error numbers.
func isConnection(err error) bool {
	for _, errno := range []syscall.Errno{syscall.ECONNRESET, syscall.ECONNREFUSED, syscall.ECONNABORTED,
		syscall.EPIPE, syscall.ETIMEDOUT, syscall.ENETUNREACH, syscall.EHOSTUNREACH} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// isHTTP2 reports whether err is an error of net/http's HTTP/2 client, which
// exports no type for it.
func isHTTP2(err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if strings.HasPrefix(fmt.Sprintf("%T", err), "http.http2") {
			return !isHeaderFault(err)
		}
	}
	return false
}

// compressionError is the code of an HTTP/2 connection whose headers cannot be
// decoded, for example because they are too large (RFC 9113, section 7).
const compressionError = 9

// isHeaderFault reports whether err is that error of net/http's HTTP/2 client.
func isHeaderFault(err error) bool {
	v := reflect.ValueOf(err)
	return v.IsValid() && v.CanUint() && fmt.Sprintf("%T", err) == "http.http2ConnectionError" && v.Uint() == compressionError
}

// isRefused reports whether this package refused to connect to an address.
func isRefused(err error) bool {
	_, ok := errors.AsType[*AddressError](err)
	return ok
}

func isCertificate(err error) bool {
	_, ok := errors.AsType[*tls.CertificateVerificationError](err)
	return ok
}

// isDial reports whether err occurred while connecting. On the first request, the
// likely reason is a wrong host name or a server that is not running.
func isDial(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial" && !op.Timeout() || isRefused(err)
}

// networkCause returns the cause of a network error, without the address.
func networkCause(err error) error {
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Errorf("look up %s: %s", e.Name, e.Err)
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e.Err
	}
	return err
}
