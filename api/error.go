package api

import "net/http"

// An Error is what a daemon answers when it cannot do what was asked.
type Error struct {
	Code    ErrorCode `json:"code"`
	Message string    `json:"message"`
	// ExitCode is what a command line that fails of it ends with, 0 for any:
	// 126 and 127 where a machine's command cannot be run.
	ExitCode int `json:"exitCode,omitempty"`
}

func (e *Error) Error() string { return e.Message }

// A StreamError is the last line of an answer in lines that broke off.
type StreamError struct {
	Error *Error `json:"error"`
}

// An ErrorCode says what kind of failure an Error is.
type ErrorCode string

// The codes.
const (
	CodeInvalid     ErrorCode = "invalid"      // the request makes no sense: 400
	CodeNotFound    ErrorCode = "not_found"    // no such machine, or no such route: 404
	CodeNoImage     ErrorCode = "no_image"     // no such image: 404
	CodeNoKernel    ErrorCode = "no_kernel"    // no such kernel: 404
	CodeNoCommand   ErrorCode = "no_command"   // the command is not in the image: 400
	CodeNotBootable ErrorCode = "not_bootable" // the image cannot run so: 400
	CodeNameTaken   ErrorCode = "name_taken"   // 409
	CodeRunning     ErrorCode = "running"      // the machine runs, and must not: 409
	CodeNotRunning  ErrorCode = "not_running"  // the machine does not run, and must: 409
	CodeBusy        ErrorCode = "busy"         // another command works on the machine: 409
	CodeVersion     ErrorCode = "version"      // of the protocol, or of a record: 426
	CodeTooMany     ErrorCode = "too_many"     // connections, or machines: 429
	CodeMissing     ErrorCode = "missing"      // a program of the host is: 501
	CodeDriver      ErrorCode = "driver"       // the disk driver asked for does not work on this host: 501
	CodeNoSpace     ErrorCode = "no_space"     // on the host: 507
	CodeFailed      ErrorCode = "failed"       // else; of a machine that did not come up: 502
	CodeInternal    ErrorCode = "internal"     // a fault of the daemon's own: 500
)

// Status returns the HTTP status of an answer with the code.
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
	case CodeFailed:
		return http.StatusBadGateway
	case CodeInternal:
	}
	return http.StatusInternalServerError
}
