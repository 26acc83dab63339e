package tree

import "hash/maphash"

// index finds the dentry of a name in a directory. It is an open-addressing
// hash table of dentry numbers. It never removes a number, because a removed
// name keeps its dentry without an inode. The seed is random, so that an
// image cannot choose names that collide.
type index struct {
	t     *Tree // has the dentries
	seed  maphash.Seed
	slots []uint32 // dentry number, 0 if free
	used  int
}

func newIndex(t *Tree) index {
	return index{t: t, seed: maphash.MakeSeed(), slots: make([]uint32, 1024)}
}

func (x *index) hash(parent ID, name string) uint64 {
	const odd = 0x9e3779b97f4a7c15 // 2^64 / golden ratio; distributes small integers over all bits
	return maphash.String(x.seed, name) ^ uint64(parent)*odd
}

// find returns the dentry of name in dir, or 0 and the free slot for it.
func (x *index) find(dir ID, name string) (slot int, d uint32) {
	mask := len(x.slots) - 1
	for slot = int(x.hash(dir, name)) & mask; ; slot = (slot + 1) & mask {
		d = x.slots[slot]
		if d == 0 {
			return slot, 0
		}
		if e := x.t.dentries.at(d); e.parent == dir && int(e.length) == len(name) && x.t.name(e) == name {
			return slot, d
		}
	}
}

// insert puts d into a slot that find returned. It doubles the table when it
// is three quarters full, because probing gets slow in a fuller one.
func (x *index) insert(slot int, d uint32) {
	x.slots[slot] = d
	if x.used++; x.used*4 < len(x.slots)*3 {
		return
	}
	old := x.slots
	x.slots = make([]uint32, 2*len(old))
	for _, d := range old {
		if d != 0 {
			e := x.t.dentries.at(d)
			slot, _ := x.find(e.parent, x.t.name(e))
			x.slots[slot] = d
		}
	}
}
