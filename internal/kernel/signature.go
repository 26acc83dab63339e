package kernel

import (
	"bytes"
	"encoding/binary"
)

// signatureMark ends a signed module: MODULE_SIG_STRING of
// linux/module_signature.h.
const signatureMark = "~Module signature appended~\n"

// signatureInfo is the size in bytes of struct module_signature, which stands
// before the mark and ends in the length of the signature, big-endian.
const signatureInfo = 12

// unsigned returns a module without its signature. The digest of its bundle
// vouches for it already, and to check an RSA signature takes an emulated
// processor a tenth of a second for each module. What only looks like a
// signature stays.
func unsigned(module []byte) []byte {
	rest, ok := bytes.CutSuffix(module, []byte(signatureMark))
	if !ok || len(rest) < signatureInfo {
		return module
	}
	size := int64(binary.BigEndian.Uint32(rest[len(rest)-4:]))
	end := int64(len(rest)) - signatureInfo - size
	if end <= 0 {
		return module
	}
	return module[:end]
}
