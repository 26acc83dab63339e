package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/banger-vm/banger/internal/base/atomicfile"
)

// Schema is the version of the format that this package writes. It reads no
// other. Any new field of it is a new version.
const Schema = 1

// FileName is the ledger's own copy in the machine's folder.
const FileName = "handles.json"

// sectionName is what the record's copy is called when it is set aside.
const sectionName = "record-runtime.json"

// MaxSize bounds the size in bytes of a copy.
const MaxSize = 4 << 20

// A body is what a copy says.
type body struct {
	Schema     int     `json:"schema"`
	Machine    string  `json:"machine"`
	Generation uint64  `json:"generation"` // grows with every change
	Entries    []Entry `json:"entries"`
}

// A sealed body carries the checksum of its JSON. A copy may be indented by
// who embeds it, so the checksum is that of the body written anew.
type sealed struct {
	body
	Checksum string `json:"checksum"`
}

func (b *body) checksum() (string, error) {
	data, err := json.Marshal(b)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

func (b *body) encode() (json.RawMessage, error) {
	sum, err := b.checksum()
	if err != nil {
		return nil, fmt.Errorf("encode ledger: %w", err)
	}
	data, err := json.Marshal(sealed{*b, sum})
	if err != nil {
		return nil, fmt.Errorf("encode ledger: %w", err)
	}
	if len(data) > MaxSize {
		return nil, fmt.Errorf("encode ledger: %d bytes, want at most %d", len(data), MaxSize)
	}
	return data, nil
}

// decode returns the body of a copy, once it is sure to be whole and of
// machine id.
func decode(data []byte, id string) (*body, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("more than %d bytes", MaxSize)
	}
	// The version stands first: another one may have other types.
	var head struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, err
	}
	if head.Schema != Schema {
		return nil, fmt.Errorf("schema version %d, this banger knows %d", head.Schema, Schema)
	}
	var s sealed
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, err
	}
	sum, err := s.checksum()
	switch {
	case err != nil:
		return nil, err
	case sum != s.Checksum:
		return nil, errors.New("checksum does not match")
	case s.Machine != id:
		return nil, fmt.Errorf("is of machine %q", s.Machine)
	}
	return &s.body, checkAll(s.Entries, id)
}

// errDamaged marks the reason why a copy does not count.
var errDamaged = errors.New("damaged")

// readFile returns the body of the ledger's own copy: an errDamaged, an
// fs.ErrNotExist, or an error of a host that cannot read now.
func readFile(path, id string) (*body, error) {
	// A FIFO must not block, and a symbolic link is nothing that this package made.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, blame(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, blame(err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: not a regular file", errDamaged)
	}
	if info.Size() > MaxSize {
		return nil, fmt.Errorf("%w: more than %d bytes", errDamaged, MaxSize)
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, blame(err)
	}
	b, err := decode(data, id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return b, nil
}

// blame tells a file that cannot be read from a host that is short of something.
func blame(err error) error {
	for _, passing := range []error{fs.ErrNotExist, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EINTR} {
		if errors.Is(err, passing) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", errDamaged, err)
}

// maxAside bounds the damaged files that are kept of one name.
const maxAside = 1000

// AsideMark is in the names of damaged files that were set aside.
const AsideMark = ".damaged-"

// SetAside renames a damaged file to the first of path.damaged-1,
// path.damaged-2… that is free, and returns that name. A file that is not
// there is no error.
func SetAside(path string) (string, error) {
	to, err := freeName(path)
	if err != nil {
		return "", err
	}
	err = os.Rename(path, to)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("set damaged file aside: %w", err)
	}
	return to, nil
}

func freeName(path string) (string, error) {
	for n := 1; n <= maxAside; n++ {
		to := fmt.Sprintf("%s%s%d", path, AsideMark, n)
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			return to, nil
		} else if err != nil {
			return "", fmt.Errorf("set damaged file aside: %w", err)
		}
	}
	return "", fmt.Errorf("set damaged file aside: %s: there are %d of them; look at them and delete them", path, maxAside)
}

// keepSection saves a section that the record is about to lose.
func keepSection(dir string, section []byte) (string, error) {
	to, err := freeName(filepath.Join(dir, sectionName))
	if err != nil {
		return "", err
	}
	if err := atomicfile.Write(to, section, 0o600); err != nil {
		return "", fmt.Errorf("set damaged section aside: %w", err)
	}
	return to, nil
}
