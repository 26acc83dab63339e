package read

import (
	"fmt"
	"math/bits"

	"github.com/banger-vm/banger/internal/image/ext4/format"
)

// nameHash returns the hash of a name in a directory (ext4fs_dirhash in
// linux/fs/ext4/hash.c). Its lowest bit is 0. It returns an error if the version
// is unknown.
func (fs *FS) nameHash(version byte, name string) (uint32, error) {
	signed := !fs.sb.HashUnsigned
	if version >= format.HashUnsigned {
		version, signed = version-format.HashUnsigned, false
	}
	buf := [4]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}
	if fs.sb.HashSeed != [4]uint32{} {
		buf = fs.sb.HashSeed
	}
	var hash uint32
	switch version {
	case format.HashLegacy:
		hash = legacyHash(name, signed)
	case format.HashHalfMD4:
		for rest := name; rest != ""; rest = rest[min(len(rest), 32):] {
			var in [8]uint32
			hashWords(in[:], rest, signed)
			halfMD4Round(&buf, &in)
		}
		hash = buf[1]
	case format.HashTEA:
		for rest := name; rest != ""; rest = rest[min(len(rest), 16):] {
			var in [4]uint32
			hashWords(in[:], rest, signed)
			teaRound(&buf, &in)
		}
		hash = buf[0]
	default:
		return 0, fmt.Errorf("directory hash %d is not known", version)
	}
	hash &^= 1
	if hash == 0xfffffffe { // EXT4_HTREE_EOF, which marks the end of a directory
		hash = 0xfffffffc
	}
	return hash, nil
}

// widen extends a byte of a name to a word, with its sign if signed is set.
func widen(c byte, signed bool) uint32 {
	if signed {
		return uint32(int32(int8(c)))
	}
	return uint32(c)
}

// hashWords packs the beginning of a name into words and fills the rest with
// its length (str2hashbuf_signed and str2hashbuf_unsigned in
// linux/fs/ext4/hash.c).
func hashWords(out []uint32, name string, signed bool) {
	pad := uint32(len(name)) | uint32(len(name))<<8
	pad |= pad << 16
	for i := range out {
		val := pad
		for _, c := range []byte(name[:min(len(name), 4)]) {
			val = widen(c, signed) + val<<8
		}
		out[i] = val
		name = name[min(len(name), 4):]
	}
}

// halfMD4Round mixes eight words into buf. It is MD4 of RFC 1320 with half of
// the steps.
func halfMD4Round(buf *[4]uint32, in *[8]uint32) {
	rounds := [3]struct {
		f     func(x, y, z uint32) uint32
		k     uint32
		order [8]int
		shift [4]int
	}{
		{func(x, y, z uint32) uint32 { return z ^ x&(y^z) }, 0, [8]int{0, 1, 2, 3, 4, 5, 6, 7}, [4]int{3, 7, 11, 19}},
		{func(x, y, z uint32) uint32 { return x&y + (x^y)&z }, 0x5a827999, [8]int{1, 3, 5, 7, 0, 2, 4, 6}, [4]int{3, 5, 9, 13}},
		{func(x, y, z uint32) uint32 { return x ^ y ^ z }, 0x6ed9eba1, [8]int{3, 7, 2, 6, 1, 5, 0, 4}, [4]int{3, 9, 11, 15}},
	}
	a, b, c, d := buf[0], buf[1], buf[2], buf[3]
	for _, r := range rounds {
		for i, word := range r.order {
			a = bits.RotateLeft32(a+r.f(b, c, d)+in[word]+r.k, r.shift[i%4])
			a, b, c, d = d, a, b, c
		}
	}
	buf[0] += a
	buf[1] += b
	buf[2] += c
	buf[3] += d
}

// teaRound mixes four words into buf by the Tiny Encryption Algorithm
// (TEA_transform in linux/fs/ext4/hash.c).
func teaRound(buf *[4]uint32, in *[4]uint32) {
	b0, b1, sum := buf[0], buf[1], uint32(0)
	for range 16 {
		sum += 0x9e3779b9
		b0 += (b1<<4 + in[0]) ^ (b1 + sum) ^ (b1>>5 + in[1])
		b1 += (b0<<4 + in[2]) ^ (b0 + sum) ^ (b0>>5 + in[3])
	}
	buf[0] += b0
	buf[1] += b1
}

// legacyHash returns the hash of a name that old ext2 directories use
// (dx_hack_hash in linux/fs/ext4/hash.c).
func legacyHash(name string, signed bool) uint32 {
	hash0, hash1 := uint32(0x12a3fe2d), uint32(0x37abe8f9)
	for _, c := range []byte(name) {
		hash := hash1 + (hash0 ^ widen(c, signed)*7152373)
		if hash&0x80000000 != 0 {
			hash -= 0x7fffffff
		}
		hash0, hash1 = hash, hash0
	}
	return hash0 << 1
}
