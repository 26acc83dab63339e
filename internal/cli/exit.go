package cli

import (
	"errors"
	"fmt"

	"github.com/banger-vm/banger/api"
)

// The exit codes of run and exec that do not come from the command. 126 and
// 127 are those that the daemon's errors have.
const (
	exitTimeout = 124 // as timeout(1)
	exitOwn     = 125 // banger failed, as docker's
)

// perShell is what a shell adds to the number of the signal that ended a
// command.
const perShell = 128

// An exitError ends banger with a code and without a message.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// exitWith is the error for a code: nil for 0.
func exitWith(code int) error {
	if code == exitDone {
		return nil
	}
	return exitError(code)
}

// A codedError is an error with an exit code of its own.
type codedError struct {
	code int
	error
}

func (e *codedError) Unwrap() error { return e.error }

// ownFailure gives an error of run or exec its exit code: 126 or 127 where
// the command is the fault, 125 else. A wrong command line stays one.
func ownFailure(err error) error {
	if err == nil || exitCode(err) == exitUsage {
		return err
	}
	if _, ok := errors.AsType[exitError](err); ok {
		return err
	}
	if _, ok := errors.AsType[*codedError](err); ok {
		return err
	}
	code := exitOwn
	if wire, ok := errors.AsType[*api.Error](err); ok && wire.ExitCode != 0 {
		code = wire.ExitCode
	}
	return &codedError{code, err}
}

// exitCode is what a command ends with after err.
func exitCode(err error) int {
	if code, ok := errors.AsType[exitError](err); ok {
		return int(code)
	}
	if coded, ok := errors.AsType[*codedError](err); ok {
		return coded.code
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	if wire, ok := errors.AsType[*api.Error](err); ok && wire.Code == api.CodeInvalid {
		return exitUsage
	}
	return exitFailed
}
