package layer

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Version and tags of the binary format that the kernel uses for ACLs, from
// linux/posix_acl_xattr.h and linux/posix_acl.h.
const (
	aclVersion     = 2
	aclUserObj     = 0x01
	aclUser        = 0x02
	aclGroupObj    = 0x04
	aclGroup       = 0x08
	aclMask        = 0x10
	aclOther       = 0x20
	aclUndefinedID = 0xffffffff
)

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

// parseACL converts a POSIX.1e text ACL, as tar programs store it, into the
// binary value of system.posix_acl_access and system.posix_acl_default. A
// user or group must be given by number: as the qualifier, or as the fourth
// field that star and bsdtar add. parseACL refuses a name without a number,
// because only the image's own passwd and group files could resolve it.
func parseACL(s string) (string, error) {
	var entries []aclEntry
	for part := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == ',' || r == '\n' }) {
		part, _, _ = strings.Cut(part, "#") // getfacl(1) adds the effective rights as a comment
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		e, err := parseACLEntry(part)
		if err != nil {
			return "", fmt.Errorf("ACL entry %q: %w", part, err)
		}
		entries = append(entries, e)
	}
	if err := checkACL(entries); err != nil {
		return "", err
	}
	out := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range entries {
		out = binary.LittleEndian.AppendUint16(out, e.tag)
		out = binary.LittleEndian.AppendUint16(out, e.perm)
		out = binary.LittleEndian.AppendUint32(out, e.id)
	}
	return string(out), nil
}

func parseACLEntry(part string) (aclEntry, error) {
	fields := strings.Split(part, ":")
	if len(fields) < 2 || len(fields) > 4 {
		return aclEntry{}, fmt.Errorf("has %d fields, want 2 to 4", len(fields))
	}
	if len(fields) == 2 { // "other:r-x" and "mask:rwx"
		fields = []string{fields[0], "", fields[1]}
	}
	e := aclEntry{id: aclUndefinedID}
	qualifier := fields[1]
	switch fields[0] {
	case "user", "u":
		e.tag = aclUserObj
		if qualifier != "" {
			e.tag = aclUser
		}
	case "group", "g":
		e.tag = aclGroupObj
		if qualifier != "" {
			e.tag = aclGroup
		}
	case "mask", "m":
		e.tag = aclMask
	case "other", "o":
		e.tag = aclOther
	default:
		return aclEntry{}, fmt.Errorf("unknown tag %q: want user, group, mask or other", fields[0])
	}
	var err error
	if e.tag == aclUser || e.tag == aclGroup {
		if len(fields) == 4 {
			qualifier = fields[3]
		}
		e.id, err = parseACLID(qualifier)
	} else if qualifier != "" {
		return aclEntry{}, fmt.Errorf("qualifier %q: only a user or a group has one", qualifier)
	}
	if err != nil {
		return aclEntry{}, err
	}
	e.perm, err = parsePerm(fields[2])
	return e, err
}

func parseACLID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == aclUndefinedID {
		return 0, fmt.Errorf("%q is no numeric id", s)
	}
	return uint32(n), nil
}

func parsePerm(s string) (uint16, error) {
	var perm uint16
	for _, c := range s {
		switch c {
		case 'r':
			perm |= 4
		case 'w':
			perm |= 2
		case 'x':
			perm |= 1
		case '-':
		default:
			return 0, fmt.Errorf("permissions %q: want r, w, x and -", s)
		}
	}
	return perm, nil
}

// checkACL sorts the entries into the kernel's order and applies the kernel's
// checks (posix_acl_valid in fs/posix_acl.c). Each of the three base entries
// must be present once, no qualifier may repeat, and an ACL with named users
// or groups needs a mask.
func checkACL(entries []aclEntry) error {
	slices.SortFunc(entries, func(a, b aclEntry) int {
		return cmp.Or(cmp.Compare(a.tag, b.tag), cmp.Compare(a.id, b.id))
	})
	count := map[uint16]int{}
	for i, e := range entries {
		count[e.tag]++
		if i > 0 && entries[i-1].tag == e.tag && entries[i-1].id == e.id {
			return fmt.Errorf("ACL: two entries with the same tag and ID")
		}
	}
	if count[aclUserObj] != 1 || count[aclGroupObj] != 1 || count[aclOther] != 1 {
		return fmt.Errorf("ACL: user::, group:: and other:: are required once each")
	}
	if count[aclUser]+count[aclGroup] > 0 && count[aclMask] != 1 {
		return fmt.Errorf("ACL: entries for named users or groups need a mask")
	}
	return nil
}
