package format

import (
	"encoding/binary"
	"hash/crc32"
)

// Checksum continues a CRC-32C over data from seed. As in ext4, neither the
// start nor the result is inverted (ext4_chksum in linux/fs/ext4/ext4.h).
func Checksum(seed uint32, data []byte) uint32 {
	return ^crc32.Update(^seed, crc32.MakeTable(crc32.Castagnoli), data)
}

// ChecksumUint32 continues a checksum over a little-endian number.
func ChecksumUint32(seed, n uint32) uint32 {
	return Checksum(seed, binary.LittleEndian.AppendUint32(nil, n))
}

// ChecksumWithout continues a checksum over data, in which it takes the bytes
// from from to to, at most 4, as zeros: the field that holds the checksum.
func ChecksumWithout(seed uint32, data []byte, from, to int) uint32 {
	var zeros [4]byte
	seed = Checksum(seed, data[:from])
	seed = Checksum(seed, zeros[:to-from])
	return Checksum(seed, data[to:])
}
