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

// restorer is the ownership pass: it gives the inodes of a disk that
// mkfs.ext4 has filled all that staging left out.
type restorer struct {
	tree    *tree.Tree
	created tree.Time
	work    *workspace
	debugfs string // path of the program

	inodes  []uint32 // inode on the disk by tree.ID, 0: not known yet
	special []entry  // of devices and fifos, which are not on the disk yet
	spare   []spare  // further names of an inode that got inodes of their own
}

// entry is a name in a directory of the disk.
type entry struct {
	dir  uint32 // inode on the disk
	name string
	id   tree.ID
}

// spare is an entry whose own inode has to go.
type spare struct {
	entry
	inode uint32
}

func (r *restorer) run(ctx context.Context) error {
	// Names become words of commands from here on, so this does not rely on
	// whoever called to have looked at them.
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

// makeSpecial makes the devices and fifos, once for each of their names.
// Their numbers come with the other fields.
func (r *restorer) makeSpecial(ctx context.Context) error {
	s, err := r.work.newScript()
	if err != nil {
		return err
	}
	made := make([]int, 0, 2*len(r.special)) // by command: its index in special, or -1
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
	err = r.runScript(ctx, s, func(n int, said string) error {
		var inode uint32
		if _, err := fmt.Sscanf(said, "Allocated inode: %d", &inode); err != nil || made[n] < 0 {
			return toolError(said)
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
		r.place(n, inodes[i])
	}
	return nil
}

// place notes that inode is what name n stands for.
func (r *restorer) place(n entry, inode uint32) {
	if r.inodes[n.id] == 0 {
		r.inodes[n.id] = inode
		return
	}
	r.spare = append(r.spare, spare{n, inode})
}

// setAll runs the one script that sets every field of every inode, in the
// order of the inode table, and then unites the names of one inode.
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
	if err := r.unite(s); err != nil {
		return err
	}
	if err := s.close(); err != nil {
		return err
	}
	return r.runScript(ctx, s, refuse, "-w")
}

// setFields sets what an inode has of its own. uid and gid set both halves of
// the owner; the times are set in their parts, since debugfs would read a
// whole time in a calendar of its own.
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
		field, extra, _ := encodeTime(t.time) // survey has told of those that do not fit
		set(t.field+"_lo", "%d", field)
		set(t.field+"_extra", "%d", extra)
	}
	if in.Type == tree.CharDevice || in.Type == tree.BlockDevice {
		slot, number := encodeDevice(in.Major, in.Minor)
		set("block["+strconv.Itoa(slot)+"]", "%d", number)
	}
}

// encodeDevice returns in which word of i_block a device number is stored,
// and how: the old form where both numbers fit a byte, else the new one
// (old_encode_dev, new_encode_dev in include/linux/kdev_t.h).
func encodeDevice(major, minor uint32) (slot int, number uint32) {
	const byteMask = 0xff
	if major <= byteMask && minor <= byteMask {
		return 0, major<<8 | minor
	}
	return 1, minor&byteMask | major<<8 | (minor&^byteMask)<<12
}

// typeBits returns the bits of a mode that tell the type (stat.h, S_IFMT).
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

// unite makes the names in r.spare, which have inodes of their own so far,
// names of the one inode they stand for. Their entries are taken away first,
// so that there is room in the directory for the new ones; their inodes are
// wiped, since a symlink's still tells who staged it and when.
func (r *restorer) unite(s *script) error {
	for _, n := range r.spare {
		here, err := quote("./" + n.name) // debugfs would take "<12>" for a number
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
	for _, n := range sortedByID(r.spare) {
		if n.id != done {
			s.add("set_inode_field <%d> links_count %d", r.inodes[n.id], r.tree.Inode(n.id).Links)
			done = n.id
		}
	}
	return nil
}

func sortedByID(names []spare) []spare {
	return slices.SortedStableFunc(slices.Values(names), func(a, b spare) int { return cmp.Compare(a.id, b.id) })
}

// setXattrs stores the attributes that debugfs can store. Their values are
// put into files, since a command could not carry every byte.
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

// valueFiles are the values of attributes in the workspace, each once.
type valueFiles struct {
	work    *workspace
	numbers map[string]int
}

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
