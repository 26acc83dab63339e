package write

import "sort"

// span is a range of blocks of the disk, from start up to end.
type span struct{ start, end int64 }

// space joins free spans of the disk, in ascending order, to one range of blocks.
// A position in the space is a number of blocks from its beginning.
type space struct {
	spans []span
	first []int64 // position of the first block of each span
	total int64   // blocks
}

func newSpace(spans []span) *space {
	s := &space{spans: spans, first: make([]int64, len(spans))}
	for i, sp := range spans {
		s.first[i] = s.total
		s.total += sp.end - sp.start
	}
	return s
}

// at returns the block at position n, and the number of blocks from there to the
// end of the span. n must be less than total.
func (s *space) at(n int64) (block, count int64) {
	i := sort.Search(len(s.first), func(i int) bool { return s.first[i] > n }) - 1
	block = s.spans[i].start + n - s.first[i]
	return block, s.spans[i].end - block
}

// each calls do for each piece of the disk that the n blocks from position pos
// take.
func (s *space) each(pos, n int64, do func(block, count int64)) {
	for n > 0 {
		block, count := s.at(pos)
		count = min(count, n)
		do(block, count)
		pos, n = pos+count, n-count
	}
}

// prefix returns the spans of the first n blocks.
func (s *space) prefix(n int64) []span {
	var out []span
	s.each(0, n, func(block, count int64) { out = append(out, span{block, block + count}) })
	return out
}

// subtract returns the parts of the spans a that are in no span of b. Both lists
// must ascend.
func subtract(a, b []span) []span {
	var out []span
	for _, s := range a {
		for len(b) > 0 && b[0].end <= s.start {
			b = b[1:]
		}
		for _, cut := range b {
			if cut.start >= s.end {
				break
			}
			if cut.start > s.start {
				out = append(out, span{s.start, cut.start})
			}
			s.start = max(s.start, cut.end)
		}
		if s.start < s.end {
			out = append(out, s)
		}
	}
	return out
}

// hasBackup reports whether a group begins with a copy of the superblock and the
// descriptors. With the feature sparse_super these are groups 0, 1 and the powers
// of 3, 5 and 7.
func hasBackup(group int64) bool {
	if group <= 1 {
		return true
	}
	for _, base := range []int64{3, 5, 7} {
		n := base
		for n < group {
			n *= base
		}
		if n == group {
			return true
		}
	}
	return false
}

// flexStart returns the first block of the bitmaps and tables of the group's flex
// group: first all block bitmaps, then all inode bitmaps, then all inode tables.
func flexStart(group int64) int64 {
	group -= group % flexGroups
	if group == 0 {
		return backupBlocks
	}
	return group * groupBlocks
}

func blockBitmap(group int64) int64 { return flexStart(group) + group%flexGroups }

func inodeBitmap(group int64) int64 { return flexStart(group) + flexGroups + group%flexGroups }

func inodeTable(group int64) int64 {
	return flexStart(group) + 2*flexGroups + group%flexGroups*tableBlocks
}

// anySizeSpace returns the blocks that can hold data on a disk of any size, up to the
// largest. It leaves room for the tables of all groups of each flex group, though
// the last flex group of a disk may have fewer.
func anySizeSpace() *space {
	var reserved []span
	for g := range int64(maxGroups) {
		start := g * groupBlocks
		switch {
		case g == 0:
			reserved = append(reserved, span{0, backupBlocks + flexBlocks})
		case g%flexGroups == 0: // an even number, which is no power of 3, 5 or 7
			reserved = append(reserved, span{start, start + flexBlocks})
		case hasBackup(g):
			reserved = append(reserved, span{start, start + backupBlocks})
		}
	}
	return newSpace(subtract([]span{{0, maxGroups * groupBlocks}}, reserved))
}

// fixedSpans returns the blocks of superblocks, descriptors, bitmaps and inode
// tables on a disk of so many blocks, in ascending order.
func fixedSpans(blocks int64) []span {
	groups := (blocks + groupBlocks - 1) / groupBlocks
	var out []span
	for g := range groups {
		start := g * groupBlocks
		if hasBackup(g) {
			out = append(out, span{start, start + backupBlocks})
		}
		if g%flexGroups == 0 {
			n, at := min(flexGroups, groups-g), flexStart(g)
			out = append(out, span{at, at + n}, span{at + flexGroups, at + flexGroups + n},
				span{at + 2*flexGroups, at + 2*flexGroups + n*tableBlocks})
		}
	}
	return out
}
