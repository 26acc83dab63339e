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

// xattrs gives the extended attributes that PAX records hold, sorted by name.
// The raw form of star(1) wins over forms that are made from it.
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
		out = append(out, tree.Xattr{Name: name, Value: value})
	}
	slices.SortFunc(out, func(a, b tree.Xattr) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// deriveXattr reads an attribute from the records of other programs. The name
// is empty where the record holds none.
func deriveXattr(key, value string) (name, data string, err error) {
	switch key {
	case "RHT.security.selinux":
		return "security.selinux", value + "\x00", nil // the kernel keeps the NUL, tar does not
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

// aclTags are those of linux/posix_acl.h, without and with a qualifier.
var aclTags = map[string][2]uint16{
	"user": {0x01, 0x02}, "u": {0x01, 0x02},
	"group": {0x04, 0x08}, "g": {0x04, 0x08},
	"mask": {0x10}, "m": {0x10},
	"other": {0x20}, "o": {0x20},
}

// parseACL turns a text ACL into the value that getxattr(2) gives for it:
// version 2, then tag, permissions and id of each entry
// (linux/posix_acl_xattr.h). Blank text gives no value.
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

// parseACLEntry reads "user:NAME:rwx", with the number of the user in place of
// the name or as a fourth field.
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
		who := fields[1]
		if len(fields) == 4 {
			who = fields[3]
		}
		number, err := strconv.ParseUint(who, 10, 32)
		if err != nil || tag == 0 {
			return 0, 0, 0, fmt.Errorf("qualifier is no number")
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
