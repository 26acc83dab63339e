package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// A request is a request of QMP: docs/interop/qmp-spec of QEMU.
type request struct {
	Execute string          `json:"execute"`
	ID      json.RawMessage `json:"id"`
}

// An owner is the QMP connection of the stub's owner.
type owner struct {
	lines  *bufio.Scanner
	conn   *os.File
	guest  *os.Process
	status string

	mu sync.Mutex // held while a line is written
}

// monitor serves QMP until the guest ends or the owner requests the end.
func monitor(socket int, guest *os.Process, ended <-chan struct{}) error {
	conn, err := accept(socket)
	if err != nil {
		return err
	}
	c := &owner{lines: bufio.NewScanner(conn), conn: conn, guest: guest, status: "running"}
	c.say(`{"QMP": {"version": {"qemu": {"major": 9, "minor": 9, "micro": 9}}, "capabilities": []}}`)
	c.serve() // the owner takes an end before its first command for a failed start
	quit := make(chan struct{})
	go func() {
		defer close(quit)
		for c.serve() {
		}
	}()
	select {
	case <-ended:
		c.say(`{"event": "SHUTDOWN", "timestamp": {}, "data": {"guest": true, "reason": "guest-shutdown"}}`)
	case <-quit:
		c.say(`{"event": "SHUTDOWN", "timestamp": {}, "data": {"guest": false, "reason": "host-qmp-quit"}}`)
	}
	return nil
}

func (c *owner) say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.conn, format+"\n", args...) // if the owner has ended, so does this process
}

// signal sends the guest's process a signal. An error means that the guest has ended.
func (c *owner) signal(s os.Signal) { _ = c.guest.Signal(s) }

// serve answers one command. It returns false for the command that ends the process.
func (c *owner) serve() bool {
	if !c.lines.Scan() {
		select {} // QEMU runs on without a monitor connection
	}
	var r request
	if err := json.Unmarshal(c.lines.Bytes(), &r); err != nil {
		c.say(`{"error": {"class": "GenericError", "desc": "not JSON"}}`)
		return true
	}
	answer := "{}"
	switch r.Execute {
	case "stop":
		c.status = "paused"
		c.signal(syscall.SIGSTOP)
	case "cont":
		c.status = "running"
		c.signal(syscall.SIGCONT)
	case "system_powerdown":
		c.signal(syscall.SIGTERM)
	case "query-status":
		answer = fmt.Sprintf(`{"status": %q}`, c.status)
	case "qmp_capabilities", "quit":
	default:
		c.say(`{"id": %s, "error": {"class": "CommandNotFound", "desc": "stubvmm does not know %s"}}`, r.ID, r.Execute)
		return true
	}
	c.say(`{"id": %s, "return": %s}`, r.ID, answer)
	return r.Execute != "quit"
}
