package layer

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/banger-vm/banger/internal/image/tree"
)

// Limits of extended attributes, from linux/limits.h and linux/xattr.h.
const (
	maxXattrName = 255
	maxXattrs    = 1 << 20 // bytes of all attributes of one entry, names included
)

// record is one PAX record, "LENGTH KEY=VALUE\n": POSIX.1-2001 pax(1), "pax
// Extended Header". The order of the records is kept, because the sparse
// format 0.0 depends on it.
type record struct{ key, value string }

type records []record

// withGlobal returns rs with the records of a global header added, which
// apply to all entries that follow. It accepts only an owner and a time. It
// refuses a name, a size and attributes, because a small layer that set them
// for every entry could need terabytes. It drops keywords that this package
// does not use, such as git's "comment".
func (rs records) withGlobal(list records) (records, error) {
	for _, r := range list {
		switch r.key {
		case "uid", "gid", "mtime":
			rs = append(rs.without(r.key), r)
		case "path", "linkpath", "size", "SCHILY.devmajor", "SCHILY.devminor":
			return nil, fmt.Errorf("global PAX record %q: makes no sense for more than one entry", r.key)
		}
		for _, prefix := range []string{"SCHILY.xattr.", "LIBARCHIVE.xattr.", "SCHILY.acl.", "RHT.", "GNU.sparse."} {
			if strings.HasPrefix(r.key, prefix) {
				return nil, fmt.Errorf("global PAX record %q: makes no sense for more than one entry", r.key)
			}
		}
	}
	return rs, nil
}

func (rs records) without(key string) records {
	return slices.DeleteFunc(slices.Clone(rs), func(r record) bool { return r.key == key })
}

func parseRecords(text string) (records, error) {
	var out records
	for text != "" {
		digits, _, ok := strings.Cut(text, " ")
		n, err := strconv.ParseUint(digits, 10, 31)
		if !ok || err != nil || int(n) > len(text) || int(n) < len(digits)+2 {
			return nil, errors.New("PAX record: length is not valid")
		}
		line := text[len(digits)+1 : n]
		text = text[n:]
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok || key == "" || !strings.HasSuffix(line, "\n") {
			return nil, errors.New("PAX record: not of the form KEY=VALUE")
		}
		out = append(out, record{key, value})
	}
	return out, nil
}

// paxState is the state of applying records to one entry.
type paxState struct {
	entry    *tree.Entry
	size     *int64
	maxXattr int
	sparse   sparseRecords
	xattrs   map[string]string
	fallback map[string]string // attributes in derived forms, used if xattrs lacks them
}

// effective returns rs without the records that a later record cancels: one
// with the same keyword and an empty value. A record of an extended attribute
// cancels nothing, because an attribute may be empty.
func (rs records) effective() records {
	var end map[string]int // index after the last record that cancels a keyword
	for i, r := range rs {
		if r.value != "" || strings.Contains(r.key, ".xattr.") {
			continue
		}
		if end == nil {
			end = map[string]int{}
		}
		end[r.key] = i + 1
	}
	if end == nil {
		return rs // the usual case
	}
	out := make(records, 0, len(rs))
	for i, r := range rs {
		if i >= end[r.key] {
			out = append(out, r)
		}
	}
	return out
}

// apply sets the fields of the entry from its records, in order: if a keyword
// repeats, the last record wins. A record with an empty value cancels the
// earlier ones, global ones included.
func (p *paxState) apply(globals, own records) error {
	for _, r := range own {
		if len(globals) > 0 {
			globals = globals.without(r.key)
		}
	}
	for _, list := range []records{globals, own} {
		for _, r := range list.effective() {
			if err := p.record(r.key, r.value); err != nil {
				return fmt.Errorf("PAX record %q: %w", r.key, err)
			}
		}
	}
	if err := p.sparse.check(); err != nil {
		return err
	}
	if p.sparse.name != "" { // writers add a made-up path for old readers
		p.entry.Name = p.sparse.name
	}
	return p.setXattrs()
}

func (p *paxState) record(key, value string) error {
	if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
		return p.xattr(&p.xattrs, name, value)
	}
	if name, ok := strings.CutPrefix(key, "LIBARCHIVE.xattr."); ok {
		return p.libarchive(name, value)
	}
	if strings.HasPrefix(key, "GNU.sparse.") {
		return p.sparse.add(key, value)
	}
	switch key {
	case "SCHILY.acl.access", "SCHILY.acl.default":
		return p.acl(key, value)
	case "RHT.security.selinux":
		// The record has the text alone. The attribute ends with a NUL: setfilecon(3).
		return p.xattr(&p.fallback, "security.selinux", value+"\x00")
	}
	return p.field(key, value)
}

// field applies a record that replaces a header field. It ignores other
// keywords, such as comments, names of users and groups, and access times:
// POSIX requires a reader to ignore the keywords that it does not know.
func (p *paxState) field(key, value string) (err error) {
	e := p.entry
	switch key {
	case "path":
		e.Name = value
	case "linkpath":
		e.Linkname = value
	case "size":
		*p.size, err = strconv.ParseInt(value, 10, 64)
	case "uid":
		e.UID, err = parseID(value)
	case "gid":
		e.GID, err = parseID(value)
	case "mtime":
		e.Mtime, err = parseTime(value)
	case "SCHILY.devmajor":
		e.Major, err = parseID(value)
	case "SCHILY.devminor":
		e.Minor, err = parseID(value)
	}
	return err
}

func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number from 0 to 4294967295", s)
	}
	return uint32(n), nil
}

// parseTime parses seconds with an optional decimal fraction. It rounds a
// fraction finer than a nanosecond down, towards the past.
func parseTime(s string) (tree.Time, error) {
	whole, fraction, _ := strings.Cut(s, ".")
	digits := strings.TrimPrefix(whole, "-")
	if digits == "" && fraction != "" {
		digits = "0"
	}
	sec, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || strings.Trim(digits+fraction, "0123456789") != "" {
		return tree.Time{}, fmt.Errorf("time %q: not valid", s)
	}
	nsec, finer := int64(0), false
	for i, c := range []byte(fraction) {
		finer = finer || i >= 9 && c != '0'
		if i < 9 {
			nsec = 10*nsec + int64(c-'0')
		}
	}
	for range 9 - min(len(fraction), 9) {
		nsec *= 10
	}
	if !strings.HasPrefix(whole, "-") {
		return tree.Time{Sec: sec, Nsec: uint32(nsec)}, nil
	}
	// -1.25 is 2 s before the epoch plus 0.75 s.
	if finer {
		nsec++
	}
	if nsec == 0 {
		return tree.Time{Sec: -sec}, nil
	}
	const second = 1_000_000_000
	return tree.Time{Sec: -sec - 1, Nsec: uint32(second - nsec)}, nil
}

func (p *paxState) xattr(to *map[string]string, name, value string) error {
	if name == "" || len(name) > maxXattrName || strings.ContainsRune(name, 0) {
		return errors.New("name of the extended attribute is not valid")
	}
	if len(value) > p.maxXattr {
		return &tree.LimitError{What: "bytes in an extended attribute", Limit: int64(p.maxXattr), Option: "limits.xattr"}
	}
	if *to == nil {
		*to = map[string]string{}
	}
	(*to)[name] = value
	return nil
}

// libarchive sets an attribute from bsdtar's form: the name is URL-encoded,
// the value is in base 64 (libarchive, archive_write_set_format_pax.c).
func (p *paxState) libarchive(encoded, value string) error {
	name, err := url.PathUnescape(encoded)
	if err != nil {
		return fmt.Errorf("name of the extended attribute: %w", err)
	}
	data, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
	if err != nil {
		return fmt.Errorf("value of the extended attribute: %w", err)
	}
	return p.xattr(&p.fallback, name, string(data))
}

func (p *paxState) acl(key, value string) error {
	name := "system.posix_acl_access"
	if key == "SCHILY.acl.default" {
		name = "system.posix_acl_default"
	}
	if strings.TrimSpace(value) == "" {
		return nil
	}
	data, err := parseACL(value)
	if err != nil {
		return err
	}
	return p.xattr(&p.fallback, name, data)
}

// setXattrs sets the attributes of the entry, sorted by name. bsdtar writes
// most attributes twice. If the raw form and a derived form of an attribute
// are both present, the raw form wins.
func (p *paxState) setXattrs() error {
	for name, value := range p.fallback {
		if _, ok := p.xattrs[name]; !ok {
			if p.xattrs == nil {
				p.xattrs = map[string]string{}
			}
			p.xattrs[name] = value
		}
	}
	total := 0
	for name, value := range p.xattrs {
		total += len(name) + len(value)
		p.entry.Xattrs = append(p.entry.Xattrs, tree.Xattr{Name: name, Value: value})
	}
	if total > maxXattrs {
		return &tree.LimitError{What: "bytes of extended attributes on one entry", Limit: maxXattrs}
	}
	slices.SortFunc(p.entry.Xattrs, func(a, b tree.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return nil
}
