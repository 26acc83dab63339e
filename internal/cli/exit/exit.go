// Package exit defines the exit codes of banger and the errors that carry
// them. It ends no process: main does that, with the code that Code returns.
package exit

import (
	"errors"
	"fmt"

	"github.com/banger-vm/banger/api"
)

// The exit codes that do not come from a guest's command. The daemon's errors
// carry 126 and 127, if the command cannot be run or does not exist.
const (
	Done    = 0
	Failed  = 1
	Usage   = 2
	Timeout = 124 // of run, as timeout(1) has it
	Own     = 125 // banger itself failed in run or exec, as docker has it
)

// An Error ends banger with a code and without a message.
type Error int

func (e Error) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// With returns an Error with the code, or nil if code is 0.
func With(code int) error {
	if code == Done {
		return nil
	}
	return Error(code)
}

// BySignal returns an Error with the code that a shell has for a command that
// the signal of this number ended.
func BySignal(number int) Error {
	const perShell = 128
	return Error(perShell + number)
}

// A CodedError is an error with an exit code of its own.
type CodedError struct {
	Code int
	Err  error
}

func (e *CodedError) Error() string { return e.Err.Error() }

// Unwrap returns the error without its code.
func (e *CodedError) Unwrap() error { return e.Err }

// A UsageError is a command line that makes no sense.
type UsageError struct{ msg string }

func (e *UsageError) Error() string { return e.msg }

// Usagef returns a UsageError with a formatted message.
func Usagef(format string, args ...any) error { return &UsageError{fmt.Sprintf(format, args...)} }

// OfCommand gives an error of a command in a machine (run, create, start,
// attach, exec) its exit code: 126 or 127 if the daemon blames the command,
// and 125 otherwise. Usage errors, and errors that have a code already, are
// returned as they are.
func OfCommand(err error) error {
	if err == nil || Code(err) == Usage {
		return err
	}
	if _, ok := errors.AsType[Error](err); ok {
		return err
	}
	if _, ok := errors.AsType[*CodedError](err); ok {
		return err
	}
	code := Own
	if wire, ok := errors.AsType[*api.Error](err); ok && wire.ExitCode != 0 {
		code = wire.ExitCode
	}
	return &CodedError{code, err}
}

// Code returns the exit code of banger for err.
func Code(err error) int {
	if err == nil {
		return Done
	}
	if code, ok := errors.AsType[Error](err); ok {
		return int(code)
	}
	if coded, ok := errors.AsType[*CodedError](err); ok {
		return coded.Code
	}
	if _, ok := errors.AsType[*UsageError](err); ok {
		return Usage
	}
	if wire, ok := errors.AsType[*api.Error](err); ok && wire.Code == api.CodeInvalid {
		return Usage
	}
	return Failed
}
