package pull

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/banger-vm/banger/internal/base/digest"
)

// What a caller can tell apart, to say what the user can do.
var (
	// ErrNotFound says that the registry or daemon has no such image.
	ErrNotFound = errors.New("not found")
	// ErrUnauthorized says that the registry wants other credentials.
	// Several registries answer so when a repository does not exist.
	ErrUnauthorized = errors.New("not authorized")
	// ErrPlainHTTP says that the registry answered http to https.
	ErrPlainHTTP = errors.New("registry speaks plain http")
	// ErrNetwork says that the registry could not be reached, or that the
	// connection broke.
	ErrNetwork = errors.New("network error")
)

// A LayerError is about the bytes of one layer.
type LayerError struct {
	Digest digest.Digest // "" when not known
	DiffID digest.DiffID // names the layer where Digest is not known
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

// A LimitError says which limit an image exceeds, and which key of the
// configuration raises it.
type LimitError struct {
	What   string // what is limited and how much of it there is
	Limit  int64
	Option string
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

// A PlatformError says that an image is not to be had for a platform.
type PlatformError struct {
	Want string   // os/arch[/variant]
	Have []string // in the order of the image's index, each once
}

func (e *PlatformError) Error() string {
	if len(e.Have) == 0 {
		return fmt.Sprintf("no image for platform %s", e.Want)
	}
	return fmt.Sprintf("no image for platform %s (there is %s)", e.Want, strings.Join(e.Have, ", "))
}

// statusError is an answer of a server that is not a success.
type statusError struct {
	status  int
	text    string        // of the server, cleaned; may be empty
	after   time.Duration // Retry-After, 0 when not given
	rewound bool          // the server cannot send the range that was asked for
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("server answered %d", e.status)
	if name := http.StatusText(e.status); name != "" {
		s += " " + name
	}
	if e.text != "" {
		s += ": " + e.text
	}
	return s
}

func (e *statusError) temporary() bool {
	switch e.status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return e.rewound
}

// maxErrorBody bounds what is read of an error's body, in bytes.
const maxErrorBody = 64 << 10

// checkStatus consumes and closes the body of an answer that has none of the
// wanted status codes.
func checkStatus(resp *http.Response, want ...int) error {
	for _, code := range want {
		if resp.StatusCode == code {
			return nil
		}
	}
	defer resp.Body.Close()
	e := &statusError{status: resp.StatusCode, after: retryAfter(resp.Header.Get("Retry-After"))}
	e.rewound = resp.StatusCode == http.StatusRequestedRangeNotSatisfiable
	// The status says enough where the body cannot be read.
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	e.text = errorText(body)
	return e
}

// errorText takes the messages out of an error body: of the OCI distribution
// specification ("Error Codes") or of the Docker Engine API.
func errorText(body []byte) string {
	var doc struct {
		Message string `json:"message"`
		Errors  []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &doc) != nil {
		return ""
	}
	texts := []string{doc.Message}
	for _, e := range doc.Errors {
		if e.Message == "" {
			e.Message = e.Code
		}
		texts = append(texts, e.Message)
	}
	return clean(strings.Trim(strings.Join(texts, "; "), "; "))
}

// maxText bounds foreign text in messages, in runes.
const maxText = 300

// clean makes foreign text fit for one line of a terminal.
func clean(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > maxText {
			b.WriteString("…")
			break
		}
		if !unicode.IsPrint(r) {
			r = ' '
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}

// classify gives err the sentinel that fits it and drops what the caller says
// anyway: addresses and URLs, whose query may hold secrets.
func classify(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || isClassified(err) {
		return err
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*transport.Error](err); ok {
		err = ownStatus(e)
	}
	if e, ok := errors.AsType[*statusError](err); ok {
		return classifyStatus(e, err)
	}
	if errors.Is(err, http.ErrSchemeMismatch) {
		return ErrPlainHTTP
	}
	if isNetwork(err) {
		return fmt.Errorf("%w: %w", ErrNetwork, shortNetwork(err))
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

// ownStatus rewrites an error of the token exchange, which names a URL.
func ownStatus(e *transport.Error) error {
	var texts []string
	for _, d := range e.Errors {
		if d.Message == "" {
			d.Message = string(d.Code)
		}
		texts = append(texts, d.Message)
	}
	return fmt.Errorf("get token: %w", &statusError{status: e.StatusCode, text: clean(strings.Join(texts, "; "))})
}

// errForeign says that a registry need not have a layer.
var errForeign = errors.New("foreign layer, its content is not in the registry")

// errStalled says that a connection was given up since nothing came.
var errStalled = errors.New("no data for too long")

func isNetwork(err error) bool {
	if isCertificate(err) {
		return false
	}
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return true
	}
	// An Errno is a net.Error by its methods, also where a file caused it.
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return isConnection(err)
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, errStalled) || isHTTP2(err)
}

// isConnection tells the errors of a socket from those of the cache's files.
func isConnection(err error) bool {
	for _, errno := range []syscall.Errno{syscall.ECONNRESET, syscall.ECONNREFUSED, syscall.ECONNABORTED,
		syscall.EPIPE, syscall.ETIMEDOUT, syscall.ENETUNREACH, syscall.EHOSTUNREACH} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// isHTTP2 recognises errors of net/http's HTTP/2 client, which exports no
// type for them.
func isHTTP2(err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if strings.HasPrefix(fmt.Sprintf("%T", err), "http.http2") {
			return true
		}
	}
	return false
}

func isCertificate(err error) bool {
	_, ok := errors.AsType[*tls.CertificateVerificationError](err)
	return ok
}

// isDial reports errors before any connection stood, which at the start most
// likely come from a wrong name or a server that does not run.
func isDial(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial" && !op.Timeout()
}

func shortNetwork(err error) error {
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Errorf("look up %s: %s", e.Name, e.Err)
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e.Err
	}
	return err
}
