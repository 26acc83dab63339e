package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/guest"
)

// stringPayload is a payload of one SSH string.
type stringPayload struct{ Text string }

// serveGlobal answers the global requests of one connection. A refusal carries
// the text of the error.
func (a *agent) serveGlobal(ctx context.Context, requests <-chan *ssh.Request, listeners *reverse) {
	for req := range requests {
		var answer []byte
		var err error
		if isForward(req) {
			if err = a.root.wait(ctx, nil); err == nil {
				answer, err = listeners.handle(ctx, req)
			}
		} else {
			answer, err = a.handleGlobal(ctx, req)
		}
		if !req.WantReply {
			continue
		}
		if err != nil {
			req.Reply(false, []byte(err.Error()))
			continue
		}
		req.Reply(true, answer)
	}
}

func (a *agent) handleGlobal(ctx context.Context, req *ssh.Request) ([]byte, error) {
	switch req.Type {
	case guest.RequestStatus:
		b, err := json.Marshal(a.status())
		return ssh.Marshal(stringPayload{string(b)}), err
	case guest.RequestClock:
		var c guest.Clock
		if err := decodeJSON(req.Payload, &c); err != nil {
			return nil, err
		}
		return nil, setClock(c.Time)
	case guest.RequestPowerOff:
		var p guest.PowerOff
		if err := decodeJSON(req.Payload, &p); err != nil {
			return nil, err
		}
		return nil, a.powerOff(ctx, time.Duration(max(0, p.Grace))*time.Millisecond)
	}
	return nil, fmt.Errorf("no request is named %q", req.Type)
}

// decodeJSON decodes a payload of one SSH string that holds JSON.
func decodeJSON(payload []byte, v any) error { return decodeParts(nil, payload, v) }

// decodeParts is decodeJSON for a payload whose first bytes came in other requests.
func decodeParts(parts, payload []byte, v any) error {
	var t stringPayload
	if err := ssh.Unmarshal(payload, &t); err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	if err := json.Unmarshal(append(parts, t.Text...), v); err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	return nil
}

func (a *agent) status() guest.Status {
	s := guest.Status{Version: guest.Version, Init: a.config.Init, Uptime: sinceBoot()}
	a.root.mu.Lock()
	s.Ready, s.Notes = a.root.since, a.root.notes
	if err := a.root.err; err != nil {
		s.Notes = append(s.Notes[:len(s.Notes):len(s.Notes)], err.Error())
	}
	a.root.mu.Unlock()
	used, err := memoryUsed()
	if err != nil {
		s.Notes = append(s.Notes[:len(s.Notes):len(s.Notes)], err.Error())
	}
	s.Memory = used
	return s
}

// memoryUsed returns the bytes of memory that the kernel does not count as
// available (proc_meminfo(5)).
func memoryUsed() (int64, error) {
	content, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("read memory in use: %w", err)
	}
	kib := map[string]int64{}
	for line := range strings.Lines(string(content)) {
		name, rest, _ := strings.Cut(line, ":")
		if name != "MemTotal" && name != "MemAvailable" {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read memory in use: %w", err)
		}
		kib[name] = n
	}
	return (kib["MemTotal"] - kib["MemAvailable"]) << 10, nil
}

// setClock sets the machine's clock, in nanoseconds since 1970.
func setClock(nanoseconds int64) error {
	if nanoseconds <= 0 {
		return errors.New("set clock: no time given")
	}
	now := unix.NsecToTimespec(nanoseconds)
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &now); err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	return nil
}
