package write

import (
	"math"

	"github.com/banger-vm/banger/internal/image/tree"
)

// The range of the seconds of an inode's times, which have 34 bits: 1901-12-13 to
// 2446-05-10.
const (
	minTime = math.MinInt32
	maxTime = math.MaxInt32 + 3<<32
)

// encodeTime encodes a time as ext4_encode_extra_time in linux/fs/ext4/ext4.h
// does. If the time is out of range, encodeTime returns the nearest time in range
// and reports false.
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
