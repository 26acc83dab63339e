package main

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"
)

// An entry is a tar entry with its body.
type entry struct {
	tar.Header
	body []byte
}

// stamp returns the default time of entries. It has nanoseconds, so a test can see that they are lost.
func stamp() time.Time { return time.Date(2019, 8, 7, 6, 5, 4, 123456789, time.UTC) }

func node(typeflag byte, name string, mode int64) entry {
	return entry{Header: tar.Header{Typeflag: typeflag, Name: name, Mode: mode, ModTime: stamp(), Format: tar.FormatPAX}}
}

func dir(name string, mode int64) entry { return node(tar.TypeDir, name+"/", mode) }

func file(name string, mode int64, body string) entry {
	e := node(tar.TypeReg, name, mode)
	e.body = []byte(body)
	return e
}

func symlink(name, target string) entry {
	e := node(tar.TypeSymlink, name, 0o777)
	e.Linkname = target
	return e
}

func link(name, target string) entry {
	e := node(tar.TypeLink, name, 0o644)
	e.Linkname = target
	return e
}

func device(typeflag byte, name string, major, minor int64) entry {
	e := node(typeflag, name, 0o660)
	e.Devmajor, e.Devminor = major, minor
	return e
}

func whiteout(name string) entry { return node(tar.TypeReg, name, 0) }

func (e entry) owned(uid, gid int) entry {
	e.Uid, e.Gid = uid, gid
	return e
}

func (e entry) at(t time.Time) entry {
	e.ModTime = t
	return e
}

// xattr adds an extended attribute in the form of GNU tar and of image builders.
func (e entry) xattr(name string, value []byte) entry {
	records := map[string]string{"SCHILY.xattr." + name: string(value)}
	for k, v := range e.PAXRecords {
		records[k] = v
	}
	e.PAXRecords = records
	return e
}

// tarOf returns a tar stream of the entries.
func tarOf(entries []entry) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		e.Size = int64(len(e.body))
		if err := w.WriteHeader(&e.Header); err != nil {
			return nil, fmt.Errorf("write header of %q: %w", e.Name, err)
		}
		if _, err := w.Write(e.body); err != nil {
			return nil, fmt.Errorf("write body of %q: %w", e.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// noise returns n bytes that do not compress, the same in every run.
func noise(n int) []byte {
	stream := rand.NewChaCha8([32]byte([]byte("the torture corpus of banger ...")))
	out := make([]byte, n)
	_, _ = stream.Read(out) // it returns no error, by its documentation
	return out
}

// capability returns a value of security.capability with the effective flag and a permitted set, VFS_CAP_REVISION_2 of
// linux/capability.h.
func capability(permitted uint32) []byte {
	return words(0x02000001, permitted, 0, 0, 0)
}

// namespacedCapability is capability for VFS_CAP_REVISION_3, which adds the user ID of root in the namespace.
func namespacedCapability(permitted, root uint32) []byte {
	return words(0x03000001, permitted, 0, 0, 0, root)
}

func words(values ...uint32) []byte {
	var out []byte
	for _, v := range values {
		out = binary.LittleEndian.AppendUint32(out, v)
	}
	return out
}

// An aclEntry is an entry of linux/posix_acl_xattr.h: tag, permissions, and an ID, which some tags ignore.
type aclEntry struct {
	tag, perm uint16
	id        uint32
}

const (
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
	aclNoID     = 0xffffffff
)

// acl returns a value of system.posix_acl_access, POSIX_ACL_XATTR_VERSION 2.
func acl(entries ...aclEntry) []byte {
	out := words(2)
	for _, e := range entries {
		out = binary.LittleEndian.AppendUint16(out, e.tag)
		out = binary.LittleEndian.AppendUint16(out, e.perm)
		out = binary.LittleEndian.AppendUint32(out, e.id)
	}
	return out
}

// sharedACL returns an ACL that grants access to a user and a group besides the owner.
func sharedACL() []byte {
	return acl(
		aclEntry{aclUserObj, 6, aclNoID}, aclEntry{aclUser, 4, 1000}, aclEntry{aclUser, 6, 70000},
		aclEntry{aclGroupObj, 4, aclNoID}, aclEntry{aclGroup, 6, 2000},
		aclEntry{aclMask, 6, aclNoID}, aclEntry{aclOther, 0, aclNoID})
}
