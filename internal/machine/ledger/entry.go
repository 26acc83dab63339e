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

// A Kind is one of the sorts of things that a machine holds of its host.
type Kind string

// In the order in which they are given back: users before what they use.
const (
	Process Kind = "process"
	Tap     Kind = "tap"
	Table   Kind = "nft" // of nftables
	Netns   Kind = "netns"
	DM      Kind = "dm"
	Loop    Kind = "loop"
	Socket  Kind = "socket"
	Disk    Kind = "disk"
	Folder  Kind = "folder"
)

// kinds are all of them, in that order.
func kinds() []Kind {
	return []Kind{Process, Tap, Table, Netns, DM, Loop, Socket, Disk, Folder}
}

// An Owner is what resources are marked with: the machine's ID, and a number
// for the data folder that the machine is in. The number keeps the machines
// of several users and data folders on one host apart, so that nobody takes
// another's for a leftover of his own.
type Owner string

var (
	idForm    = regexp.MustCompile(`^[0-9a-f]{12}$`)
	ownerForm = regexp.MustCompile(`^[0-9a-f]{12}-[0-9a-f]{8}$`)
)

const (
	idLength  = 12
	tagLength = 8
)

// NewOwner returns the mark of machine id in the data folder root.
func NewOwner(id, root string) (Owner, error) {
	if !idForm.MatchString(id) {
		return "", fmt.Errorf("machine ID %q: want 12 hexadecimal digits", id)
	}
	tag, err := RootTag(root)
	return Owner(id + "-" + tag), err
}

// RootTag is the number that Owners in the data folder root have.
func RootTag(root string) (string, error) {
	path, err := filepath.Abs(root)
	if err != nil {
		return "", fmt.Errorf("data folder: %w", err)
	}
	// Two paths of one folder shall give one mark. A folder that is not there
	// yet has but one path.
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		path = resolved
	}
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:])[:tagLength], nil
}

// ParseOwner returns the Owner that s spells.
func ParseOwner(s string) (o Owner, ok bool) {
	return Owner(s), ownerForm.MatchString(s)
}

// ID is the machine's. It may be called on what ParseOwner accepts.
func (o Owner) ID() string { return string(o[:idLength]) }

// Tag is the number of the data folder. It may be called on what ParseOwner
// accepts.
func (o Owner) Tag() string { return string(o[idLength+1:]) }

// A FileID tells a file from a later one of the same name.
type FileID struct {
	Dev uint64 `json:"dev"`
	Ino uint64 `json:"ino"`
}

// An Entry is one resource. Kind and Name tell it from the machine's others.
// What else is known before the resource is made is noted with it; the rest
// is added once it is known, and is what the resource is recognised by.
type Entry struct {
	Kind  Kind   `json:"kind"`
	Name  string `json:"name"` // on the host; of a process and a loop device: its part in the machine
	Owner Owner  `json:"owner"`
	// Boot is /proc/sys/kernel/random/boot_id when the resource was made: all
	// but files end with the boot.
	Boot   string `json:"boot,omitempty"`
	PID    int    `json:"pid,omitempty"`
	Start  uint64 `json:"start,omitempty"`  // of a process: field 22 of /proc/PID/stat
	Index  int    `json:"index,omitempty"`  // of an interface
	Device string `json:"device,omitempty"` // of loop and dm: the node in /dev
	UUID   string `json:"uuid,omitempty"`   // of dm
	Path   string `json:"path,omitempty"`   // of sockets, disks, folders, namespaces; of loop: the backing file
	File   FileID `json:"file,omitzero"`    // what Path names
}

// maxString bounds the bytes of each string of an entry: PATH_MAX of
// linux/limits.h.
const maxString = 4096

// check refuses an entry that is not one of machine id.
func (e *Entry) check(id string) error {
	switch _, ok := ParseOwner(string(e.Owner)); {
	case !slices.Contains(kinds(), e.Kind):
		return fmt.Errorf("kind of resource %q is unknown", e.Kind)
	case e.Name == "":
		return fmt.Errorf("%s without a name", e.Kind)
	case !ok:
		return fmt.Errorf("%s: owner %q is not one", e, e.Owner)
	case e.Owner.ID() != id:
		return fmt.Errorf("%s: is of machine %s", e, e.Owner.ID())
	case e.PID < 0 || e.Index < 0:
		return fmt.Errorf("%s: negative number", e)
	}
	for _, s := range []string{e.Name, e.Boot, e.Device, e.UUID, e.Path} {
		// JSON would replace what is no UTF-8, and the entry name another file.
		if len(s) > maxString || !utf8.ValidString(s) {
			return fmt.Errorf("%s: string of %d bytes: want UTF-8, at most %d bytes", e.Kind, len(s), maxString)
		}
	}
	if e.Path != "" && !filepath.IsAbs(e.Path) {
		return fmt.Errorf("%s: path %s is not absolute", e, e.Path)
	}
	return nil
}

// String names the entry for a message.
func (e *Entry) String() string { return string(e.Kind) + " " + e.Name }

func (e *Entry) same(o *Entry) bool { return e.Kind == o.Kind && e.Name == o.Name }

// Sort brings entries into the order in which resources that nobody noted
// the making of can be removed: users before what they use.
func Sort(entries []Entry) {
	order := kinds()
	slices.SortStableFunc(entries, func(a, b Entry) int {
		return slices.Index(order, a.Kind) - slices.Index(order, b.Kind)
	})
}

// checkAll refuses entries of which one is not machine id's, or two are one.
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
