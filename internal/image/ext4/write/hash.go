package write

import "math/bits"

// dirHash is the state of the half MD4 hash of names with signed characters
// (linux/fs/ext4/hash.c). Package read has its own implementation, so that the two
// check each other.
type dirHash [4]uint32

// newDirHash returns the hash with a seed. A seed of zeros selects the one of MD4.
func newDirHash(seed [16]byte) dirHash {
	if seed == [16]byte{} {
		return dirHash{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}
	}
	var h dirHash
	for i := range h {
		h[i] = le.Uint32(seed[4*i:])
	}
	return h
}

// sum returns the hash of a name.
func (h dirHash) sum(name string) uint32 {
	const block = 32
	for rest := name; rest != ""; rest = rest[min(len(rest), block):] {
		h.mix(signedWords(rest))
	}
	hash := h[1] &^ 1
	if hash == 0x7fffffff<<1 { // EXT4_HTREE_EOF_32BIT
		hash = (0x7fffffff - 1) << 1
	}
	return hash
}

// signedWords packs the first 32 bytes of s into words and fills the rest with the
// length of s (str2hashbuf_signed in linux/fs/ext4/hash.c).
func signedWords(s string) (out [8]uint32) {
	pad := uint32(len(s)) * 0x01010101
	if len(s) > 255 {
		panic("name of more than 255 bytes")
	}
	s = s[:min(len(s), 32)]
	for i := range out {
		val := pad
		n := min(len(s), 4)
		for j := range n {
			val = uint32(int32(int8(s[j]))) + val<<8
		}
		out[i] = val
		s = s[n:]
	}
	return out
}

// mix mixes eight words into the state (half_md4_transform in
// linux/fs/ext4/hash.c).
func (h *dirHash) mix(in [8]uint32) {
	const k2, k3 = 0x5a827999, 0x6ed9eba1
	a, b, c, d := h[0], h[1], h[2], h[3]
	for i := 0; i < 8; i += 4 {
		a = bits.RotateLeft32(a+(d^b&(c^d))+in[i], 3)
		d = bits.RotateLeft32(d+(c^a&(b^c))+in[i+1], 7)
		c = bits.RotateLeft32(c+(b^d&(a^b))+in[i+2], 11)
		b = bits.RotateLeft32(b+(a^c&(d^a))+in[i+3], 19)
	}
	for i := 1; i >= 0; i-- { // 1 3 5 7, then 0 2 4 6
		a = bits.RotateLeft32(a+(b&c+(b^c)&d)+in[i]+k2, 3)
		d = bits.RotateLeft32(d+(a&b+(a^b)&c)+in[i+2]+k2, 5)
		c = bits.RotateLeft32(c+(d&a+(d^a)&b)+in[i+4]+k2, 9)
		b = bits.RotateLeft32(b+(c&d+(c^d)&a)+in[i+6]+k2, 13)
	}
	for i := 3; i > 0; i -= 2 { // 3 7 2 6, then 1 5 0 4
		a = bits.RotateLeft32(a+(b^c^d)+in[i]+k3, 3)
		d = bits.RotateLeft32(d+(a^b^c)+in[i+4]+k3, 9)
		c = bits.RotateLeft32(c+(d^a^b)+in[i-1]+k3, 11)
		b = bits.RotateLeft32(b+(c^d^a)+in[i+3]+k3, 15)
	}
	h[0] += a
	h[1] += b
	h[2] += c
	h[3] += d
}
