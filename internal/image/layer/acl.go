package layer

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Tags and the version of the form in which the kernel takes and gives ACLs:
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

// parseACL turns a POSIX.1e text ACL, as tar programs store it, into the
// binary value of system.posix_acl_access and _default. A user or group must
// be given by number: as the qualifier, or as the fourth field that star and
// bsdtar add. A name alone means nothing without the image's own tables.
func parseACL(s string) (string, error) {
	var entries []aclEntry
	for part := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == ',' || r == '\n' }) {
		part, _, _ = strings.Cut(part, "#") // effective rights, a comment of getfacl(1)
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
		return aclEntry{}, fmt.Errorf("%d fields", len(fields))
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
		return aclEntry{}, fmt.Errorf("tag %q is not known", fields[0])
	}
	var err error
	if e.tag == aclUser || e.tag == aclGroup {
		if len(fields) == 4 {
			qualifier = fields[3]
		}
		e.id, err = parseACLID(qualifier)
	} else if qualifier != "" {
		return aclEntry{}, fmt.Errorf("qualifier %q has no meaning here", qualifier)
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
			return 0, fmt.Errorf("permissions %q", s)
		}
	}
	return perm, nil
}

// checkACL sorts the entries as the kernel wants them and refuses what it
// would refuse (posix_acl_valid in fs/posix_acl.c): the three base entries
// once each, no qualifier twice, a mask where there are named entries.
func checkACL(entries []aclEntry) error {
	slices.SortFunc(entries, func(a, b aclEntry) int {
		return cmp.Or(cmp.Compare(a.tag, b.tag), cmp.Compare(a.id, b.id))
	})
	count := map[uint16]int{}
	for i, e := range entries {
		count[e.tag]++
		if i > 0 && entries[i-1].tag == e.tag && entries[i-1].id == e.id {
			return fmt.Errorf("ACL: two entries of one kind")
		}
	}
	if count[aclUserObj] != 1 || count[aclGroupObj] != 1 || count[aclOther] != 1 {
		return fmt.Errorf("ACL: user, group and other must be there")
	}
	if count[aclUser]+count[aclGroup] > 0 && count[aclMask] != 1 {
		return fmt.Errorf("ACL: named entries need a mask")
	}
	return nil
}
