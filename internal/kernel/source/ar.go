package source

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The archive format of ar(5) as deb(5) restricts it: a global magic, then
// members with a header of 60 bytes, each padded to an even length. A name has
// at most 16 bytes. The GNU and BSD extensions for longer names do not occur in
// packages; their names contain a slash, so next refuses them.
const (
	arMagic      = "!<arch>\n"
	arHeadSize   = 60
	arSizeAt     = 48
	arSizeLen    = 10
	arMaxMembers = 64
)

// An arReader reads the members of an archive in turn. Read reads the content
// of the member that next has returned.
type arReader struct {
	r       io.Reader
	begun   bool
	members int
	left    int64 // unread bytes of the member
	pad     int64
}

// next skips to the next member and returns its name. It returns io.EOF at the
// end of the archive.
func (a *arReader) next() (name string, err error) {
	if !a.begun {
		magic := make([]byte, len(arMagic))
		if _, err := io.ReadFull(a.r, magic); err != nil || string(magic) != arMagic {
			return "", errors.New("not an ar archive")
		}
		a.begun = true
	}
	if n, err := io.CopyN(io.Discard, a.r, a.left+a.pad); err != nil {
		// Some writers omit the padding of the last member.
		if errors.Is(err, io.EOF) && n == a.left {
			return "", io.EOF
		}
		return "", fmt.Errorf("ar: %w", noEOF(err))
	}
	a.left, a.pad = 0, 0
	head := make([]byte, arHeadSize)
	if _, err := io.ReadFull(a.r, head); err != nil {
		if errors.Is(err, io.EOF) {
			return "", io.EOF
		}
		return "", fmt.Errorf("ar: header: %w", err)
	}
	if a.members++; a.members > arMaxMembers {
		return "", fmt.Errorf("ar: more than %d members", arMaxMembers)
	}
	if string(head[arHeadSize-2:]) != "`\n" {
		return "", fmt.Errorf("ar: member %d: no header", a.members)
	}
	digits := strings.TrimRight(string(head[arSizeAt:arSizeAt+arSizeLen]), " ")
	size, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || size < 0 || strings.Trim(digits, "0123456789") != "" {
		return "", fmt.Errorf("ar: member %d: size %q", a.members, digits)
	}
	name = strings.TrimSuffix(strings.TrimRight(string(head[:16]), " "), "/")
	if name == "" || strings.ContainsAny(name, "/\x00\n") {
		return "", fmt.Errorf("ar: member %d: name %q", a.members, name)
	}
	a.left, a.pad = size, size%2
	return name, nil
}

func (a *arReader) Read(p []byte) (int, error) {
	if a.left == 0 {
		return 0, io.EOF
	}
	n, err := a.r.Read(p[:min(int64(len(p)), a.left)])
	a.left -= int64(n)
	if a.left > 0 {
		err = noEOF(err)
	}
	return n, err
}

// noEOF replaces io.EOF by io.ErrUnexpectedEOF, for a place where the archive
// must not end.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
