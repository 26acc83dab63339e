package api

import (
	"errors"
	"net/http"
)

// An Error is the daemon's answer to a request that failed.
type Error struct {
	Code    ErrorCode `json:"code"`
	Message string    `json:"message"`
	// ExitCode is the exit code for a command line that ends with this error: 126 or 127 if
	// the machine cannot run its command. If it is 0, the command line chooses one.
	ExitCode int `json:"exitCode,omitempty"`
}

func (e *Error) Error() string { return e.Message }

// IsLost reports whether a request failed because its daemon ended before the answer was
// complete. The next daemon may answer the same request.
func IsLost(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return errors.Is(err, ErrLost) || ok && e.Code == CodeEnding
}

// A StreamError is the last line of an answer in lines if the answer is incomplete.
type StreamError struct {
	Error *Error `json:"error"`
}

// An ErrorCode is the kind of a failure.
type ErrorCode string

// The codes, each with the HTTP status of its answer.
const (
	CodeInvalid     ErrorCode = "invalid"      // the request is malformed or contradicts itself: 400
	CodeNotFound    ErrorCode = "not_found"    // there is no such machine or route: 404
	CodeNoImage     ErrorCode = "no_image"     // there is no such image: 404
	CodeNoKernel    ErrorCode = "no_kernel"    // there is no such kernel: 404
	CodeNoCommand   ErrorCode = "no_command"   // the command is not in the image: 400
	CodeNotBootable ErrorCode = "not_bootable" // the image cannot run with these settings: 400
	CodeNameTaken   ErrorCode = "name_taken"   // another machine has the name: 409
	CodeRunning     ErrorCode = "running"      // the machine must not run, and runs: 409
	CodeNotRunning  ErrorCode = "not_running"  // the machine must run, and does not: 409
	CodeBusy        ErrorCode = "busy"         // another command is changing the machine: 409
	CodeVersion     ErrorCode = "version"      // the version of the protocol or of a record is not supported: 426
	CodeTooMany     ErrorCode = "too_many"     // there are too many connections or machines: 429
	CodeMissing     ErrorCode = "missing"      // the host lacks a program: 501
	CodeDriver      ErrorCode = "driver"       // the requested disk driver does not work on this host: 501
	CodeNoSpace     ErrorCode = "no_space"     // the host's file system is full: 507
	CodeEnding      ErrorCode = "ending"       // the daemon is about to end; another one may answer: 503
	CodeFailed      ErrorCode = "failed"       // any other failure, such as a machine that does not boot: 502
	CodeInternal    ErrorCode = "internal"     // the daemon has a defect: 500
)

// Status returns the HTTP status of an answer with code c.
func (c ErrorCode) Status() int {
	switch c {
	case CodeInvalid, CodeNoCommand, CodeNotBootable:
		return http.StatusBadRequest
	case CodeNotFound, CodeNoImage, CodeNoKernel:
		return http.StatusNotFound
	case CodeNameTaken, CodeRunning, CodeNotRunning, CodeBusy:
		return http.StatusConflict
	case CodeVersion:
		return http.StatusUpgradeRequired
	case CodeTooMany:
		return http.StatusTooManyRequests
	case CodeMissing, CodeDriver:
		return http.StatusNotImplemented
	case CodeNoSpace:
		return http.StatusInsufficientStorage
	case CodeEnding:
		return http.StatusServiceUnavailable
	case CodeFailed:
		return http.StatusBadGateway
	case CodeInternal:
	}
	return http.StatusInternalServerError
}
