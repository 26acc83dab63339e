package kernel

import (
	"bytes"
	"testing"
)

func TestStripSignature(t *testing.T) {
	const code = "\x7fELF and code"
	signed := func(length byte, signature string) string {
		return code + signature + "\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00" + string(length) + signatureMark
	}
	for _, row := range []struct{ name, module, want string }{
		{"signed", signed(9, "signature"), code},
		{"not signed", code, code},
		{"empty", "", ""},
		{"only the mark", signatureMark, signatureMark},
		{"a signature as long as the module", signed(byte(len(code)+9), "signature"), signed(byte(len(code)+9), "signature")},
		{"a signature longer than the module", signed(200-128, "signature"), signed(200-128, "signature")},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := stripSignature([]byte(row.module)); !bytes.Equal(got, []byte(row.want)) {
				t.Errorf("stripSignature = %q, want %q", got, row.want)
			}
		})
	}
}
