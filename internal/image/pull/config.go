package pull

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/banger-vm/banger/internal/base/digest"
)

// imageConfig is an image configuration (OCI image specification, config.md).
type imageConfig struct {
	file     v1.ConfigFile
	hasRoot  bool // the configuration has a list of diffIDs
	diffIDs  []digest.DiffID
	warnings []string // fields that parseConfig took as absent
}

// maxOddFields is the maximum number of warnings about one configuration.
const maxOddFields = 20

// parseConfig parses an image configuration. Builders write odd values, and
// Docker Engine accepts many of them, so one of them must not cost the image: a
// field that cannot be read is taken as absent, with a warning. Only the diffIDs
// must be valid.
func parseConfig(data []byte) (*imageConfig, error) {
	var bounds struct {
		RootFS struct {
			Type    string       `json:"type"`
			DiffIDs list[string] `json:"diff_ids"`
		} `json:"rootfs"`
		History history `json:"history"`
	}
	if err := json.Unmarshal(data, &bounds); err != nil {
		return nil, fmt.Errorf("parse image configuration: %s", printable(err.Error()))
	}
	if t := bounds.RootFS.Type; t != "" && t != "layers" {
		return nil, fmt.Errorf("image configuration: rootfs of type %q", printable(t))
	}
	c := &imageConfig{hasRoot: bounds.RootFS.DiffIDs != nil}
	for _, s := range bounds.RootFS.DiffIDs {
		id, err := digest.ParseDiffID(s)
		if err != nil {
			return nil, fmt.Errorf("image configuration: diffID: %s", printable(err.Error()))
		}
		c.diffIDs = append(c.diffIDs, id)
	}
	if json.Unmarshal(data, &c.file) != nil {
		c.file = v1.ConfigFile{}
		if err := c.setFields(data); err != nil {
			return nil, fmt.Errorf("parse image configuration: %s", printable(err.Error()))
		}
	}
	c.dropEmptyEnv()
	return c, nil
}

// history bounds the number of entries of a configuration's history, which takes
// much more memory than its text. A history that is no list passes.
type history struct{}

// UnmarshalJSON implements json.Unmarshaler.
func (history) UnmarshalJSON(data []byte) error {
	if data[0] != '[' {
		return nil
	}
	var entries list[json.RawMessage]
	return json.Unmarshal(data, &entries)
}

// setFields sets the fields of a configuration one by one.
func (c *imageConfig) setFields(data []byte) error {
	var fields, inner map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if strings.EqualFold(key, "config") && json.Unmarshal(fields[key], &inner) == nil {
			continue
		}
		if setField(&c.file, key, fields[key]) {
			continue
		}
		if strings.EqualFold(key, "rootfs") {
			return errors.New("rootfs")
		}
		c.warn(key, fields[key])
	}
	for _, key := range slices.Sorted(maps.Keys(inner)) {
		if !setField(&c.file.Config, key, inner[key]) {
			c.warn("config."+key, inner[key])
		}
	}
	return nil
}

// setField sets the field of *to with the JSON name key. It returns false, and
// changes nothing, if value cannot be read as the field's type.
func setField[T any](to *T, key string, value json.RawMessage) bool {
	for _, form := range forms(value) {
		one, err := json.Marshal(map[string]json.RawMessage{key: form})
		var probe T
		if err == nil && json.Unmarshal(one, &probe) == nil {
			return json.Unmarshal(one, to) == nil
		}
	}
	return false
}

// forms returns value and another value that a builder may mean by it: a string
// for a list of one, an empty list for an empty object, and a number for a string.
func forms(value json.RawMessage) []json.RawMessage {
	text := string(bytes.TrimSpace(value))
	switch {
	case text == `""`:
		return []json.RawMessage{value, json.RawMessage("[]")}
	case text[0] == '"':
		return []json.RawMessage{value, json.RawMessage("[" + text + "]")}
	case text[0] == '[' && strings.TrimSpace(text[1:]) == "]":
		return []json.RawMessage{value, json.RawMessage("{}")}
	case text[0] == '-' || text[0] >= '0' && text[0] <= '9':
		return []json.RawMessage{value, json.RawMessage(`"` + text + `"`)}
	}
	return []json.RawMessage{value}
}

func (c *imageConfig) warn(key string, value json.RawMessage) {
	const shown = 60 // bytes of a value
	text := string(value)
	if len(text) > shown {
		text = text[:shown] + "…"
	}
	switch {
	case len(c.warnings) < maxOddFields:
		c.warnings = append(c.warnings, fmt.Sprintf("image configuration: %s is %s, taken as absent", printable(key), printable(text)))
	case len(c.warnings) == maxOddFields:
		c.warnings = append(c.warnings, "image configuration: further fields taken as absent")
	}
}

// dropEmptyEnv removes empty entries of Env, which null in its list stands for, and
// values without a name, which no process can have.
func (c *imageConfig) dropEmptyEnv() {
	c.file.Config.Env = slices.DeleteFunc(c.file.Config.Env, func(s string) bool {
		if strings.HasPrefix(s, "=") {
			value, _ := json.Marshal(s) // of a string: no error
			c.warn("an entry of config.Env", value)
			return true
		}
		return false
	})
	n := len(c.file.Config.Env)
	c.file.Config.Env = slices.DeleteFunc(c.file.Config.Env, func(s string) bool { return s == "" })
	if len(c.file.Config.Env) < n {
		c.warnings = append(c.warnings, "image configuration: empty entries of config.Env, taken as absent")
	}
}
