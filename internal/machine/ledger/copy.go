package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/banger-vm/banger/internal/base/atomicfile"
	"github.com/banger-vm/banger/internal/base/digest"
)

// Schema is the version of the format that this package writes, and the only
// one that it reads. A new field needs a new version.
const Schema = 1

// FileName is the name of the ledger's own copy in the machine's folder.
const FileName = "handles.json"

// sectionName is the file name under which the record's copy is set aside,
// before AsideMark and a number.
const sectionName = "record-runtime.json"

// MaxSize is the most bytes that a copy may have.
const MaxSize = 4 << 20

// A body is the content of a copy without its checksum.
type body struct {
	Schema     int     `json:"schema"`
	Machine    string  `json:"machine"`
	Generation uint64  `json:"generation"` // grows with each write
	Entries    []Entry `json:"entries"`
}

// sealed is a body with the checksum of its JSON. The record's JSON indents
// the section that it embeds, so the checksum is that of the body encoded again
// without indentation.
type sealed struct {
	body
	Checksum string `json:"checksum"`
}

func (b *body) checksum() (string, error) {
	data, err := json.Marshal(b)
	if err != nil {
		return "", err
	}
	return string(digest.FromBytes(data)), nil
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

// decode returns the body of a copy. It returns an error if the copy is damaged,
// has another version, or is not of machine id.
func decode(data []byte, id string) (*body, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("more than %d bytes", MaxSize)
	}
	// The version is checked first: the fields of another one may have other types.
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
		return nil, fmt.Errorf("belongs to machine %q", s.Machine)
	}
	return &s.body, checkAll(s.Entries, id)
}

// errDamaged is in the chain of each error that reports a damaged copy.
var errDamaged = errors.New("damaged")

// readFile returns the body of the ledger's own copy. The error is errDamaged,
// fs.ErrNotExist, or an error of a host that is short of a resource.
func readFile(path, id string) (*body, error) {
	// O_NONBLOCK: a FIFO must not block. O_NOFOLLOW: this package makes no
	// symbolic link, so one here is damage.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, readError(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, readError(err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: not a regular file", errDamaged)
	}
	if info.Size() > MaxSize {
		return nil, fmt.Errorf("%w: more than %d bytes", errDamaged, MaxSize)
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, readError(err)
	}
	b, err := decode(data, id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return b, nil
}

// readError adds errDamaged to the error of a failed read, unless the file is
// missing or the host is short of a resource: a later read may then succeed.
func readError(err error) error {
	for _, passing := range []error{fs.ErrNotExist, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EINTR} {
		if errors.Is(err, passing) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", errDamaged, err)
}

// maxAside is the number of damaged files that are kept of one name.
const maxAside = 1000

// AsideMark is part of the name of each damaged file that was set aside.
const AsideMark = ".damaged-"

// SetAside renames a damaged file to the first free name of path.damaged-1,
// path.damaged-2, and so on, and returns that name. If the file does not exist,
// SetAside returns "" and no error.
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

// freeName returns the first free name for a damaged file.
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

// keepSection writes a damaged section to a file of its own, because the next
// write of the record replaces it. It returns the path of that file.
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
