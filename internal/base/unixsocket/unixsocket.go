// Package unixsocket has what every Unix socket of the project needs and package net
// lacks: paths that are longer than an address can hold, a limit on the connections
// of a listener, and joining two connections.
package unixsocket

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// In calls do with a path of the socket name in the folder dir. A socket's address
// holds at most 108 bytes, sun_path of unix(7); the path that do gets fits for every
// dir, and is valid until do returns. If dir does not exist, the error is
// fs.ErrNotExist.
func In[T any](dir, name string, do func(path string) (T, error)) (T, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		var none T
		return none, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	return do("/proc/self/fd/" + strconv.Itoa(fd) + "/" + name)
}
