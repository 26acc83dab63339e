package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"
)

// stdio combines standard input and standard output in one stream.
type stdio struct {
	io.Reader
	io.WriteCloser
}

// SFTP serves one client on standard input and output, as the current user and
// in the current folder. It returns when the client has closed the stream.
func SFTP() error {
	unix.Umask(0o022)
	server, err := sftp.NewServer(stdio{os.Stdin, os.Stdout})
	if err != nil {
		return fmt.Errorf("start sftp: %w", err)
	}
	if err := server.Serve(); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("serve sftp: %w", err)
	}
	return nil
}

// sftpLaunch prepares the sftp subsystem for a user.
func sftpLaunch(user, program string) (*launch, error) {
	l, err := loginLaunch(user, "", nil, nil)
	if err != nil {
		return nil, err
	}
	l.path, l.argv = program, []string{filepath.Base(program), "sftp"}
	return l, nil
}
