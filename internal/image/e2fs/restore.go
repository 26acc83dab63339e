package e2fs

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/banger-vm/banger/internal/image/tree"
)

// rootInode is EXT2_ROOT_INO of ext2_fs.h.
const rootInode = 2

// restorer sets the metadata that staging left out in the inodes of a disk
// that mkfs.ext4 has filled, and makes the devices and fifos.
type restorer struct {
	tree    *tree.Tree
	created tree.Time
	work    *workspace
	debugfs string // path of the program

	inodes     []uint32    // inode on the disk by tree.ID, 0 if not known yet
	special    []entry     // names of devices and fifos, which are not on the disk yet
	duplicates []duplicate // further names of an inode, which have inodes of their own
}

// entry is a name in a directory of the disk.
type entry struct {
	dir  uint32 // inode on the disk
	name string
	id   tree.ID
}

// duplicate is an entry with an inode of its own, which linkNames removes.
type duplicate struct {
	entry
	inode uint32
}

func (r *restorer) run(ctx context.Context) error {
	// The names become words of commands, so run checks them again and does
	// not rely on its caller.
	if err := checkNames(r.tree); err != nil {
		return err
	}
	r.inodes = make([]uint32, r.tree.EndID())
	if err := r.findInodes(ctx); err != nil {
		return fmt.Errorf("find inodes: %w", err)
	}
	if err := r.makeSpecial(ctx); err != nil {
		return fmt.Errorf("make devices: %w", err)
	}
	if err := r.setAll(ctx); err != nil {
		return fmt.Errorf("set owners and modes: %w", err)
	}
	return nil
}

// makeSpecial makes the devices and fifos, one inode for each of their names.
// setFields sets their device numbers later.
func (r *restorer) makeSpecial(ctx context.Context) error {
	s, err := r.work.newScript()
	if err != nil {
		return err
	}
	made := make([]int, 0, 2*len(r.special)) // index in special by command, -1 for cd
	for i, n := range r.special {
		quoted, err := quote(n.name)
		if err != nil {
			return err
		}
		s.add("cd <%d>", n.dir)
		switch r.tree.Type(n.id) {
		case tree.CharDevice:
			s.add("mknod %s c 0 0", quoted)
		case tree.BlockDevice:
			s.add("mknod %s b 0 0", quoted)
		default:
			s.add("mknod %s p", quoted)
		}
		made = append(made, -1, i)
	}
	if err := s.close(); err != nil {
		return err
	}
	inodes := make([]uint32, len(r.special))
	err = r.runScript(ctx, s, func(n int, line string) error {
		var inode uint32
		if _, err := fmt.Sscanf(line, "Allocated inode: %d", &inode); err != nil || made[n] < 0 {
			return toolError(line)
		}
		inodes[made[n]] = inode
		return nil
	}, "-w")
	if err != nil {
		return err
	}
	for i, n := range r.special {
		if inodes[i] == 0 {
			return fmt.Errorf("debugfs gave no inode for %q", n.name)
		}
		r.assign(n, inodes[i])
	}
	return nil
}

// assign records inode as the inode of the entry n. If another name of n.id
// has an inode already, it records n as a duplicate.
func (r *restorer) assign(n entry, inode uint32) {
	if r.inodes[n.id] == 0 {
		r.inodes[n.id] = inode
		return
	}
	r.duplicates = append(r.duplicates, duplicate{n, inode})
}

// setAll runs one script that sets every field of every inode, in the order
// of the inode table, and then replaces duplicates by hard links.
func (r *restorer) setAll(ctx context.Context) error {
	ids := make([]tree.ID, 0, r.tree.NumInodes())
	for id := range r.tree.EndID() {
		switch {
		case r.inodes[id] != 0:
			ids = append(ids, id)
		case r.tree.Type(id) != 0:
			return fmt.Errorf("inode %d of the tree is not on the disk", id)
		}
	}
	slices.SortFunc(ids, func(a, b tree.ID) int { return cmp.Compare(r.inodes[a], r.inodes[b]) })

	s, err := r.work.newScript()
	if err != nil {
		return err
	}
	values := valueFiles{work: r.work, numbers: map[string]int{}}
	for _, id := range ids {
		in := r.tree.Inode(id)
		r.setFields(s, r.inodes[id], in)
		if err := r.setXattrs(s, r.inodes[id], in, &values); err != nil {
			return err
		}
	}
	if err := r.linkNames(s); err != nil {
		return err
	}
	if err := s.close(); err != nil {
		return err
	}
	return r.runScript(ctx, s, wantSilence, "-w")
}

// setFields sets the fields of an inode. debugfs's uid and gid set both halves
// of a number. setFields sets the two parts of each time, because debugfs
// would parse a whole time as a calendar date.
func (r *restorer) setFields(s *script, inode uint32, in tree.Inode) {
	set := func(field, format string, value any) {
		s.add("set_inode_field <%d> %s "+format, inode, field, value)
	}
	set("mode", "0%o", typeBits(in.Type)|in.Mode)
	set("uid", "%d", in.UID)
	set("gid", "%d", in.GID)
	for _, t := range []struct {
		field string
		time  tree.Time
	}{
		{"atime", in.Mtime}, {"ctime", in.Mtime}, {"mtime", in.Mtime}, {"crtime", r.created},
	} {
		field, extra, _ := encodeTime(t.time) // inspect warns about times that ext4 cannot store
		set(t.field+"_lo", "%d", field)
		set(t.field+"_extra", "%d", extra)
	}
	if in.Type == tree.CharDevice || in.Type == tree.BlockDevice {
		slot, number := encodeDevice(in.Major, in.Minor)
		set("block["+strconv.Itoa(slot)+"]", "%d", number)
	}
}

// encodeDevice returns the index of the word in i_block that stores a device
// number, and its value. It uses the old encoding if both numbers fit a byte,
// and the new one otherwise (old_encode_dev and new_encode_dev in
// include/linux/kdev_t.h).
func encodeDevice(major, minor uint32) (slot int, number uint32) {
	const byteMask = 0xff
	if major <= byteMask && minor <= byteMask {
		return 0, major<<8 | minor
	}
	return 1, minor&byteMask | major<<8 | (minor&^byteMask)<<12
}

// typeBits returns the bits of a mode that encode the type (S_IFMT of stat.h).
func typeBits(t tree.Type) uint16 {
	switch t {
	case tree.Directory:
		return 0o040000
	case tree.Symlink:
		return 0o120000
	case tree.CharDevice:
		return 0o020000
	case tree.BlockDevice:
		return 0o060000
	case tree.Fifo:
		return 0o010000
	}
	return 0o100000
}

// linkNames replaces each duplicate by a hard link to the inode of its
// tree.ID. It removes the old entry first, so that the directory has room for
// the new one. It clears the inode of the duplicate, because that of a symlink
// still has the user and the time of the staging.
func (r *restorer) linkNames(s *script) error {
	for _, n := range r.duplicates {
		here, err := quote("./" + n.name) // debugfs would parse "<12>" as an inode number
		if err != nil {
			return err
		}
		plain, err := quote(n.name)
		if err != nil {
			return err
		}
		s.add("cd <%d>", n.dir)
		s.add("rm %s", here)
		s.add("clri <%d>", n.inode)
		s.add("ln <%d> %s", r.inodes[n.id], plain)
	}
	done := tree.ID(0)
	for _, n := range sortedByID(r.duplicates) {
		if n.id != done {
			s.add("set_inode_field <%d> links_count %d", r.inodes[n.id], r.tree.Inode(n.id).Links)
			done = n.id
		}
	}
	return nil
}

func sortedByID(names []duplicate) []duplicate {
	return slices.SortedStableFunc(slices.Values(names), func(a, b duplicate) int { return cmp.Compare(a.id, b.id) })
}

// setXattrs sets the attributes that debugfs can store. It writes their values
// to files, because a command cannot contain every byte.
func (r *restorer) setXattrs(s *script, inode uint32, in tree.Inode, values *valueFiles) error {
	for _, x := range splitXattrs(in.Xattrs).kept {
		attr, err := quote(x.Name)
		if err != nil {
			return err
		}
		file, err := values.put(x.Value)
		if err != nil {
			return fmt.Errorf("write value of %s: %w", x.Name, err)
		}
		s.add("ea_set -f %s <%d> %s", file, inode, attr)
	}
	return nil
}

// valueFiles are files of attribute values in the workspace, one for each
// distinct value.
type valueFiles struct {
	work    *workspace
	numbers map[string]int
}

// put returns the name of the file that holds value, and writes the file if
// there is none.
func (v *valueFiles) put(value string) (string, error) {
	n, ok := v.numbers[value]
	if !ok {
		n = len(v.numbers)
		v.numbers[value] = n
	}
	file := valuesName + "/" + strconv.Itoa(n)
	if ok {
		return file, nil
	}
	return file, v.work.write(file, []byte(value))
}
