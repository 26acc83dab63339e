package daemon

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/machine/record"
)

// notLabel is the key of the filters label!=KEY and label!=KEY=VALUE.
const notLabel = "label!"

// filters has conditions on machines by their keys. A machine matches if it meets at
// least one condition of each key, and all conditions of notLabel.
type filters map[string][]func(*record.Record) bool

// maxFilters is the number of filters that a request may have.
const maxFilters = 100

// parseFilters parses conditions of the form KEY=VALUE.
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
		if key == notLabel {
			key = text // a key for each, because all of them must hold
		}
		out[key] = append(out[key], condition)
	}
	return out, nil
}

// parseFilter returns the condition for a key and a value.
func parseFilter(key, value string) (func(*record.Record) bool, error) {
	switch key {
	case "name":
		return func(r *record.Record) bool { return strings.Contains(r.Config.Name, value) }, nil
	case "id":
		return func(r *record.Record) bool { return strings.HasPrefix(r.ID, value) }, nil
	case "label":
		return labelFilter(value), nil
	case notLabel:
		has := labelFilter(value)
		return func(r *record.Record) bool { return !has(r) }, nil
	case "status":
		return statusFilter(value)
	case "image":
		return imageFilter(value), nil
	case "exited":
		code, err := strconv.Atoi(value)
		if err != nil {
			return nil, invalid("filter exited=%s: want an exit code", value)
		}
		return func(r *record.Record) bool { return r.State == record.StateExited && r.ExitCode == code }, nil
	case "until":
		return untilFilter(value)
	}
	return nil, invalid("filter %q: want name, id, label, label!, status, image, exited or until", key)
}

// labelFilter matches machines with a label KEY, or with a label KEY=VALUE.
func labelFilter(value string) func(*record.Record) bool {
	key, want, valued := strings.Cut(value, "=")
	return func(r *record.Record) bool {
		got, ok := r.Config.Labels[key]
		return ok && (!valued || got == want)
	}
}

func statusFilter(value string) (func(*record.Record) bool, error) {
	known := []record.State{record.StateCreating, record.StateCreated, record.StateRunning, record.StateExited}
	if !slices.Contains(known, record.State(value)) {
		return nil, invalid("filter status=%s: want creating, created, running or exited", value)
	}
	return func(r *record.Record) bool { return r.State == record.State(value) }, nil
}

// imageFilter matches machines by the name of their image, in any spelling of the
// same name, or by the beginning of its digest.
func imageFilter(value string) func(*record.Record) bool {
	canonical := pull.CanonicalName(value)
	return func(r *record.Record) bool {
		if r.ImageName == value || canonical != "" && pull.CanonicalName(r.ImageName) == canonical {
			return true
		}
		id := string(r.Image)
		return strings.HasPrefix(id, value) || strings.HasPrefix(strings.TrimPrefix(id, "sha256:"), value)
	}
}

// untilFilter matches machines that were created before a time, or longer ago than
// a duration.
func untilFilter(value string) (func(*record.Record) bool, error) {
	at, err := time.Parse(time.RFC3339Nano, value)
	if err != nil {
		age, err := time.ParseDuration(value)
		if err != nil || age < 0 {
			return nil, invalid("filter until=%s: want a time as 2006-01-02T15:04:05Z, or a duration as 24h", value)
		}
		at = time.Now().Add(-age)
	}
	return func(r *record.Record) bool { return r.Created.Before(at) }, nil
}

// match reports whether a machine meets the conditions.
func (f filters) match(r *record.Record) bool {
	for _, conditions := range f {
		if !slices.ContainsFunc(conditions, func(holds func(*record.Record) bool) bool { return holds(r) }) {
			return false
		}
	}
	return true
}

// hasState reports whether there are conditions on the state of machines.
func (f filters) hasState() bool { return len(f["status"])+len(f["exited"]) > 0 }
