// Package unixsocket adds to package net the parts that the project's Unix sockets
// share: paths that are longer than an address can hold, a limit on the connections of
// a listener, and joining two connections.
package unixsocket

import (
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxPath is the length of the longest path that a socket's address can hold: sun_path
// of unix(7) without its final NUL.
const maxPath = 107

// In calls do with a path of the socket name in the folder dir. The path fits into a
// socket's address for every dir, and is valid until do returns. If dir does not exist,
// the error is fs.ErrNotExist.
func In[T any](dir, name string, do func(path string) (T, error)) (T, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		var none T
		return none, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	path := filepath.Join(dir, name)
	if len(path) > maxPath {
		path = "/proc/self/fd/" + strconv.Itoa(fd) + "/" + name
	}
	return do(path)
}
