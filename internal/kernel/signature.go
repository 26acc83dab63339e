package kernel

import (
	"bytes"
	"encoding/binary"
)

// signatureMark is the end of a signed module: MODULE_SIG_STRING of
// include/linux/module_signature.h.
const signatureMark = "~Module signature appended~\n"

// signatureInfo is the size in bytes of struct module_signature, which precedes
// the mark. Its last field is the length of the signature, big-endian.
const signatureInfo = 12

// stripSignature returns module without its signature. The digest of the kernel
// protects the module already, and an emulated processor takes 0.1 s to check
// an RSA signature. stripSignature returns module as it is if its end only
// resembles a signature.
func stripSignature(module []byte) []byte {
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
