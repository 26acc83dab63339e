// Package unixsocket reaches Unix sockets whose paths are longer than a socket's
// address has room for: 108 bytes, sun_path of unix(7). It neither listens nor
// dials: what is done with a path is its caller's.
package unixsocket

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// In calls do with a path of the socket name in the folder dir, which is short
// enough whatever dir is, and holds for as long as do runs. The error of a
// folder that is not there is fs.ErrNotExist.
func In[T any](dir, name string, do func(path string) (T, error)) (T, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		var none T
		return none, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	return do("/proc/self/fd/" + strconv.Itoa(fd) + "/" + name)
}
