package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/banger-vm/banger/internal/guest"
)

// The newc format of cpio: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel. All fields have 8
// digits.
const (
	magic      = "070701"
	headerSize = 110
	sizeField  = len(magic) + 6*8
	nameField  = len(magic) + 11*8
)

// readConfig reads the machine's configuration from its initramfs, which is a sequence of archives.
func readConfig(f *os.File) (*guest.Config, error) {
	for at := int64(0); ; {
		header := make([]byte, headerSize)
		if _, err := f.ReadAt(header, at); err != nil {
			return nil, fmt.Errorf("find configuration in initramfs: %w", err)
		}
		if header[0] == 0 { // padding between two archives
			at += 4
			continue
		}
		size, sizeErr := strconv.ParseInt(string(header[sizeField:sizeField+8]), 16, 64)
		nameSize, nameErr := strconv.ParseInt(string(header[nameField:nameField+8]), 16, 64)
		if err := errors.Join(sizeErr, nameErr); err != nil || string(header[:len(magic)]) != magic {
			return nil, fmt.Errorf("initramfs at byte %d: not an entry of an archive: %w", at, err)
		}
		name := make([]byte, nameSize)
		if _, err := f.ReadAt(name, at+headerSize); err != nil {
			return nil, fmt.Errorf("find configuration in initramfs: %w", err)
		}
		data := align(at + headerSize + nameSize)
		if "/"+strings.TrimRight(string(name), "\x00") == guest.ConfigPath {
			config := new(guest.Config)
			return config, json.NewDecoder(io.NewSectionReader(f, data, size)).Decode(config)
		}
		at = align(data + size)
	}
}

func align(n int64) int64 { return (n + 3) &^ 3 }
