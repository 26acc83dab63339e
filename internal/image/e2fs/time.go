package e2fs

import (
	"math"

	"github.com/banger-vm/banger/internal/image/tree"
)

// encodeTime splits t into a time field of an inode and its extra field
// (fs/ext4/ext4.h, EXT4_EPOCH_BITS). The time field has 32 bits of seconds, as
// a signed number. The extra field has two more bits of the seconds and 30
// bits of nanoseconds. Together they reach from 1901 to 2446. If t is outside
// of that range, encodeTime returns the nearest time, and exact is false.
func encodeTime(t tree.Time) (field, extra uint32, exact bool) {
	const earliest, latest = math.MinInt32, 3<<32 + math.MaxInt32
	sec, nsec := t.Sec, t.Nsec
	switch {
	case sec < earliest:
		sec, nsec = earliest, 0
	case sec > latest:
		sec, nsec = latest, 0
	}
	epoch := uint32((sec-int64(int32(sec)))>>32) & 3
	return uint32(sec), epoch | nsec<<2, sec == t.Sec
}
