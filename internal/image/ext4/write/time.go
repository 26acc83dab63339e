package write

import (
	"math"

	"github.com/banger-vm/banger/internal/image/tree"
)

// What the 34 bits of an inode's times can hold: 1901-12-13 to 2446-05-10.
const (
	minTime = math.MinInt32
	maxTime = math.MaxInt32 + 3<<32
)

// encodeTime is a time in the form of EXT4_INODE_SET_XTIME in
// linux/fs/ext4/ext4.h. A time out of range comes as the nearest that can be
// held, and false.
func encodeTime(t tree.Time) (diskTime, bool) {
	inside := true
	switch {
	case t.Sec < minTime:
		t, inside = tree.Time{Sec: minTime}, false
	case t.Sec > maxTime:
		t, inside = tree.Time{Sec: maxTime}, false
	}
	epoch := uint32((t.Sec-int64(int32(t.Sec)))>>32) & 3
	return diskTime{sec: uint32(t.Sec), extra: epoch | t.Nsec<<2}, inside
}
