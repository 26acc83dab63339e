package agent

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxDatabase is the size limit of /etc/passwd and /etc/group in bytes.
const maxDatabase = 8 << 20

// maxGroups is the number of groups that a process can have (NGROUPS_MAX).
const maxGroups = 65536

// An account holds the credentials and the home of a process's user.
type account struct {
	name     string // "" for a number without an entry
	uid, gid uint32
	groups   []uint32 // supplementary
	home     string
	shell    string
}

// databases holds the paths of the image's user and group files. A missing file
// counts as empty, because numbers and root need no entry.
type databases struct{ passwd, group string }

// find resolves user[:group] by docker's rules. Each part is a name or a
// number, and a number needs no entry. The supplementary groups come from the
// group file, unless a group is given. "" is user 0.
func (d databases) find(spec string) (*account, error) {
	user, group, _ := strings.Cut(spec, ":")
	acc, err := d.findUser(user)
	if err != nil {
		return nil, err
	}
	content, err := readDatabase(d.group)
	if err != nil {
		return nil, err
	}
	if group == "" {
		if acc.name != "" {
			acc.groups = groupsOf(content, acc.name)
		}
		return acc, nil
	}
	number, numeric := parseID(group)
	for fields := range entries(content, 3) {
		gid, ok := parseID(string(fields[2]))
		if ok && (string(fields[0]) == group || numeric && gid == number) {
			acc.gid = gid
			return acc, nil
		}
	}
	if !numeric {
		return nil, fmt.Errorf("no group %q in %s", group, d.group)
	}
	acc.gid = number
	return acc, nil
}

func (d databases) findUser(user string) (*account, error) {
	content, err := readDatabase(d.passwd)
	if err != nil {
		return nil, err
	}
	number, numeric := parseID(user)
	if user == "" {
		number, numeric = 0, true
	}
	for fields := range entries(content, 7) {
		uid, okUID := parseID(string(fields[2]))
		gid, okGID := parseID(string(fields[3]))
		if okUID && okGID && (user != "" && string(fields[0]) == user || numeric && uid == number) {
			return &account{
				name: string(fields[0]), uid: uid, gid: gid,
				home: cmp.Or(string(fields[5]), "/"), shell: cmp.Or(string(fields[6]), "/bin/sh"),
			}, nil
		}
	}
	acc := &account{uid: number, home: "/", shell: "/bin/sh"}
	if user == "root" {
		acc.name, acc.home, numeric = user, "/root", true
	}
	if !numeric {
		return nil, fmt.Errorf("no user %q in %s", user, d.passwd)
	}
	return acc, nil
}

func groupsOf(content []byte, user string) []uint32 {
	var groups []uint32
	for fields := range entries(content, 4) {
		gid, ok := parseID(string(fields[2]))
		if !ok || len(groups) == maxGroups {
			continue // no program could use the entry
		}
		for member := range bytes.SplitSeq(fields[3], []byte(",")) {
			if string(bytes.TrimSpace(member)) == user {
				groups = append(groups, gid)
				break
			}
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups)
}

// entries yields the fields of each line that has at least n fields. It skips
// other lines, such as comments and entries of NIS.
func entries(content []byte, n int) func(yield func([][]byte) bool) {
	return func(yield func([][]byte) bool) {
		for line := range bytes.Lines(content) {
			fields := bytes.Split(bytes.TrimSpace(line), []byte(":"))
			if len(fields) >= n && !yield(fields) {
				return
			}
		}
	}
}

// parseID parses a user's or group's number. It rejects the greatest number,
// which means "unchanged" in system calls.
func parseID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n < 1<<32-1
}

// readDatabase reads a file of the image. It refuses a file that is not
// regular, because the image may have any file type there.
func readDatabase(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxDatabase {
		return nil, fmt.Errorf("read users: %s is not a regular file of at most %d bytes", path, maxDatabase)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxDatabase))
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	return content, nil
}
