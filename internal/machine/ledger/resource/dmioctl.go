package resource

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A mapper is an open /dev/mapper/control. It makes the calls of
// linux/dm-ioctl.h, version 4.
type mapper struct{ *os.File }

func openMapper() (mapper, error) {
	f, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	return mapper{f}, err
}

// A dmRequest is the input of a call. It names the device by its name or by its
// UUID; DM_DEV_CREATE needs both.
type dmRequest struct {
	name, uuid string
	flags      uint32
	targets    []Target
}

const (
	dmHeaderSize = int(unsafe.Sizeof(unix.DmIoctl{}))
	dmTargetSize = int(unsafe.Sizeof(unix.DmTargetSpec{}))
	dmReplySize  = 1 << 20 // room for a list of ten thousand devices
)

// call makes a call and returns the header and the data of the kernel's reply.
func (m mapper) call(command uint, r dmRequest) (unix.DmIoctl, []byte, error) {
	payload, err := encodeTargets(r.targets)
	if err != nil {
		return unix.DmIoctl{}, nil, err
	}
	size := dmHeaderSize + len(payload)
	if command == unix.DM_LIST_DEVICES || command == unix.DM_GET_TARGET_VERSION {
		size = dmReplySize
	}
	// The header needs the alignment of a uint64.
	words := make([]uint64, (size+7)/8)
	buf := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(words)*8)
	h := (*unix.DmIoctl)(unsafe.Pointer(&words[0]))
	h.Version = [3]uint32{4, 0, 0}
	h.Data_size = uint32(len(buf))
	h.Data_start = uint32(dmHeaderSize)
	h.Flags = r.flags
	h.Target_count = uint32(len(r.targets))
	if len(r.name) >= len(h.Name) || len(r.uuid) >= len(h.Uuid) {
		return unix.DmIoctl{}, nil, fmt.Errorf("dm device %s: name is too long", r.name)
	}
	copy(h.Name[:], r.name)
	copy(h.Uuid[:], r.uuid)
	copy(buf[dmHeaderSize:], payload)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, m.Fd(), uintptr(command), uintptr(unsafe.Pointer(&words[0]))); errno != 0 {
		return unix.DmIoctl{}, nil, fmt.Errorf("%s: %w", dmCommand(command), errno)
	}
	if h.Flags&unix.DM_BUFFER_FULL_FLAG != 0 {
		return unix.DmIoctl{}, nil, fmt.Errorf("%s: answer of more than %d bytes", dmCommand(command), len(buf))
	}
	start, end := int(h.Data_start), int(h.Data_size)
	if start > end || end > len(buf) {
		start, end = 0, 0
	}
	return *h, buf[start:end], nil
}

// dmCommand returns the name of a call for messages.
func dmCommand(command uint) string {
	switch command {
	case unix.DM_DEV_CREATE:
		return "create dm device"
	case unix.DM_TABLE_LOAD:
		return "load dm table"
	case unix.DM_DEV_SUSPEND:
		return "resume dm device"
	case unix.DM_DEV_REMOVE:
		return "remove dm device"
	}
	return "ask device mapper"
}

// encodeTargets returns the chain of struct dm_target_spec of a table.
func encodeTargets(targets []Target) ([]byte, error) {
	var out []byte
	for _, t := range targets {
		spec := unix.DmTargetSpec{Sector_start: t.Start, Length: t.Length}
		if len(t.Type) >= len(spec.Target_type) || bytes.ContainsRune([]byte(t.Params), 0) {
			return nil, fmt.Errorf("dm target %q: type is too long, or parameters have a zero byte", t.Type)
		}
		copy(spec.Target_type[:], t.Type)
		// A zero byte ends the parameters. The next target is aligned to 8 bytes.
		size := (dmTargetSize + len(t.Params) + 1 + 7) &^ 7
		spec.Next = uint32(size)
		b := make([]byte, size)
		if _, err := binary.Encode(b, binary.NativeEndian, &spec); err != nil {
			return nil, err
		}
		copy(b[dmTargetSize:], t.Params)
		out = append(out, b...)
	}
	return out, nil
}

// parseNames returns the names of a chain of struct dm_name_list. Each element
// has 8 bytes of device number, 4 bytes of offset to the next element, and the
// name with a zero byte.
func parseNames(data []byte) (names []string) {
	const fixed = 12
	for len(data) > fixed {
		if binary.NativeEndian.Uint64(data) != 0 { // an empty list has one element with the device number 0
			name, _, _ := bytes.Cut(data[fixed:], []byte{0})
			names = append(names, string(name))
		}
		next := binary.NativeEndian.Uint32(data[8:])
		if next < fixed || uint64(next) > uint64(len(data)) {
			break
		}
		data = data[next:]
	}
	return names
}
