package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// A request is one of QMP: see QEMU's docs/interop/qmp-spec.
type request struct {
	Execute string          `json:"execute"`
	ID      json.RawMessage `json:"id"`
}

// An owner is the owner's connection.
type owner struct {
	lines  *bufio.Scanner
	conn   *os.File
	guest  *os.Process
	status string

	mu sync.Mutex // lines are written whole
}

// monitor serves QMP until the guest ends or is to be ended.
func monitor(socket int, guest *os.Process, ended <-chan struct{}) error {
	conn, err := accept(socket)
	if err != nil {
		return err
	}
	c := &owner{lines: bufio.NewScanner(conn), conn: conn, guest: guest, status: "running"}
	c.say(`{"QMP": {"version": {"qemu": {"major": 9, "minor": 9, "micro": 9}}, "capabilities": []}}`)
	c.obey() // an end before its owner's first command would pass for a failed start
	quit := make(chan struct{})
	go func() {
		defer close(quit)
		for c.obey() {
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
	fmt.Fprintf(c.conn, format+"\n", args...) // an owner that is gone ends this process
}

// signal sends the guest's process a signal. A guest that has ended gets none, and needs none.
func (c *owner) signal(s os.Signal) { _ = c.guest.Signal(s) }

// obey answers a command; false is for the one that ends the process.
func (c *owner) obey() bool {
	if !c.lines.Scan() {
		select {} // QEMU goes on without a monitor
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
