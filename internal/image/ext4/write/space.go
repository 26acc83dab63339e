package write

import "sort"

// span is a range of blocks of the disk.
type span struct{ start, end int64 }

// space is a list of usable spans in ascending order, seen as one row of
// blocks that are counted from 0.
type space struct {
	spans []span
	first []int64 // position in the row where each span begins
	total int64
}

func newSpace(spans []span) *space {
	s := &space{spans: spans, first: make([]int64, len(spans))}
	for i, sp := range spans {
		s.first[i] = s.total
		s.total += sp.end - sp.start
	}
	return s
}

// at returns the block at position n of the row and how many follow each other
// from there, itself included. n must be less than the total.
func (s *space) at(n int64) (block, count int64) {
	i := sort.Search(len(s.first), func(i int) bool { return s.first[i] > n }) - 1
	block = s.spans[i].start + n - s.first[i]
	return block, s.spans[i].end - block
}

// each calls do for the pieces of disk that n blocks of the row from pos take.
func (s *space) each(pos, n int64, do func(block, count int64)) {
	for n > 0 {
		block, count := s.at(pos)
		count = min(count, n)
		do(block, count)
		pos, n = pos+count, n-count
	}
}

// taken returns the spans that the first n blocks of the row take.
func (s *space) taken(n int64) []span {
	var out []span
	s.each(0, n, func(block, count int64) { out = append(out, span{block, block + count}) })
	return out
}

// subtract returns what of the spans a is in none of b. Both ascend.
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

// hasBackup reports whether a group has a copy of the superblock: 0, 1 and the
// powers of 3, 5 and 7 (sparse_super).
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

// flexStart is where the bitmaps and tables of a group's flex group begin.
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

// anySize are the blocks that can hold data on a disk of any size up to the
// largest: room is left for the tables of all groups of a flex group.
func anySize() *space {
	var reserved []span
	for g := range int64(maxGroups2TiB) {
		start := g * groupBlocks
		switch {
		case g == 0:
			reserved = append(reserved, span{0, backupBlocks + flexBlocks})
		case g%flexGroups == 0: // even, hence without a backup
			reserved = append(reserved, span{start, start + flexBlocks})
		case hasBackup(g):
			reserved = append(reserved, span{start, start + backupBlocks})
		}
	}
	return newSpace(subtract([]span{{0, maxGroups2TiB * groupBlocks}}, reserved))
}

// fixed are the blocks of a disk that have their place by the format, in
// ascending order.
func fixed(blocks int64) []span {
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
