package daemon

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/machine"
)

// filters are conditions on machines by their key: of each key one must hold.
type filters map[string][]func(*machine.Record) bool

// maxFilters bounds those of one request.
const maxFilters = 100

// parseFilters reads conditions of the form KEY=VALUE.
func parseFilters(texts []string) (filters, error) {
	if len(texts) > maxFilters {
		return nil, invalid("%d filters: want at most %d", len(texts), maxFilters)
	}
	out := filters{}
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok || value == "" {
			return nil, invalid("filter %q: want KEY=VALUE", text)
		}
		condition, err := parseFilter(key, value)
		if err != nil {
			return nil, err
		}
		out[key] = append(out[key], condition)
	}
	return out, nil
}

func parseFilter(key, value string) (func(*machine.Record) bool, error) {
	switch key {
	case "name":
		return func(r *machine.Record) bool { return strings.Contains(r.Config.Name, value) }, nil
	case "id":
		return func(r *machine.Record) bool { return strings.HasPrefix(r.ID, value) }, nil
	case "label":
		return labelFilter(value), nil
	case "status":
		return statusFilter(value)
	case "image":
		return imageFilter(value), nil
	case "exited":
		code, err := strconv.Atoi(value)
		if err != nil {
			return nil, invalid("filter exited=%s: want an exit code", value)
		}
		return func(r *machine.Record) bool { return r.State == machine.StateExited && r.ExitCode == code }, nil
	case "until":
		return untilFilter(value)
	}
	return nil, invalid("filter %q: want name, id, label, status, image, exited or until", key)
}

func labelFilter(value string) func(*machine.Record) bool {
	key, want, valued := strings.Cut(value, "=")
	return func(r *machine.Record) bool {
		got, ok := r.Config.Labels[key]
		return ok && (!valued || got == want)
	}
}

func statusFilter(value string) (func(*machine.Record) bool, error) {
	known := []machine.State{machine.StateCreating, machine.StateCreated, machine.StateRunning, machine.StateExited}
	if !slices.Contains(known, machine.State(value)) {
		return nil, invalid("filter status=%s: want creating, created, running or exited", value)
	}
	return func(r *machine.Record) bool { return r.State == machine.State(value) }, nil
}

// imageFilter takes the name that the user gave, however it is written, or
// the beginning of the digest.
func imageFilter(value string) func(*machine.Record) bool {
	canonical := pull.CanonicalName(value)
	return func(r *machine.Record) bool {
		if r.ImageName == value || canonical != "" && pull.CanonicalName(r.ImageName) == canonical {
			return true
		}
		id := string(r.Image)
		return strings.HasPrefix(id, value) || strings.HasPrefix(strings.TrimPrefix(id, "sha256:"), value)
	}
}

// untilFilter takes machines that were made before a time, or longer ago than
// a duration.
func untilFilter(value string) (func(*machine.Record) bool, error) {
	at, err := time.Parse(time.RFC3339Nano, value)
	if err != nil {
		age, err := time.ParseDuration(value)
		if err != nil || age < 0 {
			return nil, invalid("filter until=%s: want a time as 2006-01-02T15:04:05Z, or a duration as 24h", value)
		}
		at = time.Now().Add(-age)
	}
	return func(r *machine.Record) bool { return r.Created.Before(at) }, nil
}

// match reports whether a machine is one of those wanted.
func (f filters) match(r *machine.Record) bool {
	for _, conditions := range f {
		if !slices.ContainsFunc(conditions, func(holds func(*machine.Record) bool) bool { return holds(r) }) {
			return false
		}
	}
	return true
}

// states reports whether machines are chosen by their state.
func (f filters) states() bool { return len(f["status"])+len(f["exited"]) > 0 }
