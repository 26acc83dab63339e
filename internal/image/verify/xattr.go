package verify

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/banger-vm/banger/internal/image/tree"
)

// isKept reports whether a disk has the attributes with this name. A build leaves
// out the others, with a warning, because Linux has no namespace for them.
func isKept(name string) bool {
	for _, prefix := range []string{"user.", "trusted.", "security."} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return name == "system.posix_acl_access" || name == "system.posix_acl_default"
}

// xattrs returns the extended attributes in PAX records, sorted by name. If an
// attribute is present in the raw form of star(1) and in a derived form, the
// raw form wins.
func xattrs(records map[string]string) ([]tree.Xattr, error) {
	raw, derived := map[string]string{}, map[string]string{}
	for key, value := range records {
		if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
			raw[name] = value
			continue
		}
		name, value, err := deriveXattr(key, value)
		if err != nil {
			return nil, fmt.Errorf("PAX record %q: %w", key, err)
		}
		if name != "" {
			derived[name] = value
		}
	}
	for name, value := range derived {
		if _, ok := raw[name]; !ok {
			raw[name] = value
		}
	}
	var out []tree.Xattr
	for name, value := range raw {
		if !isKept(name) {
			continue
		}
		out = append(out, tree.Xattr{Name: name, Value: value})
	}
	slices.SortFunc(out, func(a, b tree.Xattr) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// deriveXattr returns the attribute in a record of another form than star's.
// The name is empty if the record has no attribute.
func deriveXattr(key, value string) (name, data string, err error) {
	switch key {
	case "RHT.security.selinux":
		return "security.selinux", value + "\x00", nil // the attribute ends with a NUL, the record does not
	case "SCHILY.acl.access":
		data, err = parseACL(value)
		name = "system.posix_acl_access"
	case "SCHILY.acl.default":
		data, err = parseACL(value)
		name = "system.posix_acl_default"
	default:
		encoded, ok := strings.CutPrefix(key, "LIBARCHIVE.xattr.")
		if !ok {
			return "", "", nil
		}
		if name, err = url.PathUnescape(encoded); err != nil {
			return "", "", err
		}
		raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
		return name, string(raw), err
	}
	if data == "" {
		name = ""
	}
	return name, data, err
}

// aclTags are the tags of linux/posix_acl.h: for an entry without a qualifier,
// and for one with a qualifier.
var aclTags = map[string][2]uint16{
	"user": {0x01, 0x02}, "u": {0x01, 0x02},
	"group": {0x04, 0x08}, "g": {0x04, 0x08},
	"mask": {0x10}, "m": {0x10},
	"other": {0x20}, "o": {0x20},
}

// parseACL converts a text ACL to the value that getxattr(2) returns for it:
// version 2, then tag, permissions and ID of each entry
// (linux/posix_acl_xattr.h). If the text is blank, the value is empty.
func parseACL(text string) (string, error) {
	type line struct {
		tag, perm uint16
		id        uint32
	}
	var acl []line
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' }) {
		part, _, _ = strings.Cut(part, "#")
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		tag, id, perm, err := parseACLEntry(strings.Split(part, ":"))
		if err != nil {
			return "", fmt.Errorf("ACL entry %q: %w", part, err)
		}
		acl = append(acl, line{tag, perm, id})
	}
	if len(acl) == 0 {
		return "", nil
	}
	slices.SortFunc(acl, func(a, b line) int { return cmp.Or(cmp.Compare(a.tag, b.tag), cmp.Compare(a.id, b.id)) })
	out := []byte{2, 0, 0, 0}
	for _, l := range acl {
		out = binary.LittleEndian.AppendUint16(out, l.tag)
		out = binary.LittleEndian.AppendUint16(out, l.perm)
		out = binary.LittleEndian.AppendUint32(out, l.id)
	}
	return string(out), nil
}

// parseACLEntry parses the fields of "user:NAME:rwx". The number of the user
// is in the place of the name or in a fourth field.
func parseACLEntry(fields []string) (tag uint16, id uint32, perm uint16, err error) {
	if len(fields) == 2 {
		fields = []string{fields[0], "", fields[1]}
	}
	tags, ok := aclTags[fields[0]]
	if !ok || len(fields) < 3 || len(fields) > 4 {
		return 0, 0, 0, fmt.Errorf("not of the form tag:qualifier:permissions")
	}
	tag, id = tags[0], math.MaxUint32
	if fields[1] != "" {
		tag = tags[1]
		qualifier := fields[1]
		if len(fields) == 4 {
			qualifier = fields[3]
		}
		number, err := strconv.ParseUint(qualifier, 10, 32)
		if err != nil || tag == 0 {
			return 0, 0, 0, fmt.Errorf("qualifier %q is not a user or group number", qualifier)
		}
		id = uint32(number)
	}
	for _, c := range fields[2] {
		switch c {
		case 'r':
			perm |= 4
		case 'w':
			perm |= 2
		case 'x':
			perm |= 1
		case '-':
		default:
			return 0, 0, 0, fmt.Errorf("permissions %q", fields[2])
		}
	}
	return tag, id, perm, nil
}
