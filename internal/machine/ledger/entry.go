package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"unicode/utf8"
)

// A Kind is the kind of a resource.
type Kind string

// The kinds, in the order of removal: a resource comes before the resources
// that it uses.
const (
	Process Kind = "process"
	Tap     Kind = "tap"
	Table   Kind = "nft" // an nftables table
	DM      Kind = "dm"
	Loop    Kind = "loop"
	Socket  Kind = "socket"
	Disk    Kind = "disk"
	Folder  Kind = "folder"
)

// kinds returns all kinds in the order of removal.
func kinds() []Kind {
	return []Kind{Process, Tap, Table, DM, Loop, Socket, Disk, Folder}
}

// An Owner is the mark of a machine's resources: the machine's ID, and a number
// for the data folder that the machine is in. The number distinguishes the
// machines of several users and data folders on one host, so that one user's
// banger does not take a machine of another user for its own leftover.
type Owner string

var (
	idForm    = regexp.MustCompile(`^[0-9a-f]{12}$`)
	ownerForm = regexp.MustCompile(`^[0-9a-f]{12}-[0-9a-f]{8}$`)
)

const (
	idLength  = 12
	tagLength = 8
)

// NewOwner returns the Owner for machine id in the data folder root.
func NewOwner(id, root string) (Owner, error) {
	if !idForm.MatchString(id) {
		return "", fmt.Errorf("machine ID %q: want 12 hexadecimal digits", id)
	}
	tag, err := RootTag(root)
	return Owner(id + "-" + tag), err
}

// RootTag returns the number that stands for the data folder root in an Owner.
func RootTag(root string) (string, error) {
	path, err := filepath.Abs(root)
	if err != nil {
		return "", fmt.Errorf("data folder: %w", err)
	}
	// Two paths to one folder must give one number. If the folder does not exist
	// yet, the path stays as it is.
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		path = resolved
	}
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:])[:tagLength], nil
}

// ParseOwner returns s as an Owner. ok reports whether s has the form of one.
func ParseOwner(s string) (o Owner, ok bool) {
	return Owner(s), ownerForm.MatchString(s)
}

// ID returns the machine's ID. It panics if o is shorter than an ID; ParseOwner
// accepts no such o.
func (o Owner) ID() string { return string(o[:idLength]) }

// Tag returns the number of the data folder. It panics if o is shorter than an
// ID and a separator; ParseOwner accepts no such o.
func (o Owner) Tag() string { return string(o[idLength+1:]) }

// A FileID is the device and inode number of a file. It distinguishes the file
// from a later one of the same name.
type FileID struct {
	Dev uint64 `json:"dev"`
	Ino uint64 `json:"ino"`
}

// An Entry describes one resource. Kind and Name distinguish it from the other
// resources of the machine. Note gets the fields that are known before the
// resource is made. Identify adds the others, by which Remove recognises the
// resource.
type Entry struct {
	Kind  Kind   `json:"kind"`
	Name  string `json:"name"` // on the host; for a process or a loop device: its role in the machine
	Owner Owner  `json:"owner"`
	// Boot is /proc/sys/kernel/random/boot_id at the time when the resource was
	// made. No resource but a file outlives a boot of the host.
	Boot   string `json:"boot,omitempty"`
	PID    int    `json:"pid,omitempty"`
	Start  uint64 `json:"start,omitempty"`  // start time of a process: field 22 of /proc/PID/stat
	Index  int    `json:"index,omitempty"`  // of an interface
	Device string `json:"device,omitempty"` // node in /dev of a loop or dm device
	UUID   string `json:"uuid,omitempty"`   // of a dm device
	Path   string `json:"path,omitempty"`   // of a socket, disk or folder; backing file of a loop device
	File   FileID `json:"file,omitzero"`    // of the file at Path
}

// maxString is the most bytes that a string of an entry may have: PATH_MAX of
// linux/limits.h.
const maxString = 4096

// check returns an error unless the entry is a valid one of machine id.
func (e *Entry) check(id string) error {
	switch _, ok := ParseOwner(string(e.Owner)); {
	case !slices.Contains(kinds(), e.Kind):
		return fmt.Errorf("kind of resource %q is unknown", e.Kind)
	case e.Name == "":
		return fmt.Errorf("%s without a name", e.Kind)
	case !ok:
		return fmt.Errorf("%s: owner %q: want a machine ID, '-' and 8 hexadecimal digits", e, e.Owner)
	case e.Owner.ID() != id:
		return fmt.Errorf("%s: belongs to machine %s", e, e.Owner.ID())
	case e.PID < 0 || e.Index < 0:
		return fmt.Errorf("%s: process ID %d, interface index %d: want none below 0", e, e.PID, e.Index)
	}
	for _, s := range []string{e.Name, e.Boot, e.Device, e.UUID, e.Path} {
		// JSON replaces bytes that are not UTF-8: the entry would name another file.
		if len(s) > maxString || !utf8.ValidString(s) {
			return fmt.Errorf("%s: string of %d bytes: want UTF-8, at most %d bytes", e.Kind, len(s), maxString)
		}
	}
	if e.Path != "" && !filepath.IsAbs(e.Path) {
		return fmt.Errorf("%s: path %s is not absolute", e, e.Path)
	}
	return nil
}

// String returns the kind and name of the entry, for messages.
func (e *Entry) String() string { return string(e.Kind) + " " + e.Name }

func (e *Entry) same(o *Entry) bool { return e.Kind == o.Kind && e.Name == o.Name }

// Sort sorts entries by kind, in the order of removal. It is for entries that
// come from a search of the host instead of a ledger.
func Sort(entries []Entry) {
	order := kinds()
	slices.SortStableFunc(entries, func(a, b Entry) int {
		return slices.Index(order, a.Kind) - slices.Index(order, b.Kind)
	})
}

// checkAll returns an error if an entry is not a valid one of machine id, or if
// two entries have the same kind and name.
func checkAll(entries []Entry, id string) error {
	type key struct {
		kind Kind
		name string
	}
	seen := make(map[key]bool, len(entries))
	for i := range entries {
		e := &entries[i]
		if err := e.check(id); err != nil {
			return err
		}
		if seen[key{e.Kind, e.Name}] {
			return errors.New(e.String() + " is entered twice")
		}
		seen[key{e.Kind, e.Name}] = true
	}
	return nil
}
