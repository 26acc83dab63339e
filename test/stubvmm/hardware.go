package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// hardware has the parts of a machine that the stub uses: the descriptors of its files and sockets.
type hardware struct {
	initrd              int
	qmp, console, agent int
	cmdline             string
}

// parseHardware parses a command line of package vmm/qemu.
func parseHardware(args []string) (*hardware, error) {
	hw := &hardware{initrd: -1, qmp: -1, console: -1, agent: -1}
	sockets := map[string]*int{"qmp": &hw.qmp, "console": &hw.console, "agent": &hw.agent}
	for i := 0; i+1 < len(args); i++ {
		value := args[i+1]
		var err error
		switch args[i] {
		case "-kernel":
			err = closeUnused(value) // it may be a copy of 50 MiB in memory
		case "-initrd":
			hw.initrd, err = descriptor(value)
		case "-append":
			hw.cmdline = value
		case "-chardev":
			err = parseSocket(value, sockets)
		case "-blockdev":
			err = checkDisk(value)
		}
		if err != nil {
			return nil, fmt.Errorf("argument %s %s: %w", args[i], value, err)
		}
	}
	if hw.initrd < 0 || hw.qmp < 0 || hw.console < 0 || hw.agent < 0 {
		return nil, fmt.Errorf("arguments lack a descriptor: %+v", *hw)
	}
	return hw, nil
}

// descriptor returns N of a path /proc/self/fd/N.
func descriptor(path string) (int, error) {
	return strconv.Atoi(strings.TrimPrefix(path, "/proc/self/fd/"))
}

func closeUnused(path string) error {
	fd, err := descriptor(path)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func parseSocket(value string, sockets map[string]*int) error {
	found := regexp.MustCompile(`^socket,id=(\w+),fd=(\d+),server=on,wait=(on|off)$`).FindStringSubmatch(value)
	if found == nil {
		return errors.New("not a socket")
	}
	to, ok := sockets[found[1]]
	if !ok {
		return errors.New("socket of another name")
	}
	var err error
	*to, err = strconv.Atoi(found[2])
	return err
}

// checkDisk checks that the descriptor of a disk is open for writing exactly if the machine may write to it. The
// descriptor stays open.
func checkDisk(node string) error {
	found := regexp.MustCompile(`"filename":"/dev/fdset/(\d+)".*"read-only":(true|false)`).FindStringSubmatch(node)
	if found == nil {
		return nil // a node on top of another one
	}
	fd, err := strconv.Atoi(found[1])
	if err != nil {
		return err
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	if writes := flags&unix.O_ACCMODE == unix.O_RDWR; writes != (found[2] == "false") {
		return fmt.Errorf("open for writing: %v", writes)
	}
	unix.CloseOnExec(fd)
	return nil
}

// accept returns the first connection of a listening socket.
func accept(fd int) (*os.File, error) {
	l, err := net.FileListener(os.NewFile(uintptr(fd), "socket"))
	if err != nil {
		return nil, err
	}
	conn, err := l.Accept()
	if err != nil {
		return nil, err
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.New("not a Unix socket")
	}
	defer conn.Close()
	return unixConn.File()
}
