package digest

import (
	"crypto/sha256"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	hex := strings.Repeat("0a", 32)
	d, err := ParseDigest("sha256:" + hex)
	if err != nil || d.Hex() != hex || d.Short() != "0a0a0a0a0a0a" {
		t.Errorf("got %s, %v", d, err)
	}
	for name, s := range map[string]string{
		"empty": "", "no algorithm": hex, "another algorithm": "sha512:" + hex, "short": "sha256:" + hex[1:],
		"long": "sha256:" + hex + "0", "uppercase": "sha256:" + strings.ToUpper(hex), "no digit": "sha256:" + hex[:63] + "/",
	} {
		if _, err := ParseDiffID(s); err == nil {
			t.Errorf("%s: %q was accepted", name, s)
		}
	}
	if Digest("").Short() != "" {
		t.Error("the empty digest has a short form")
	}
}

// TestFrom computes the digest of "abc", an example of FIPS 180-4.
func TestFrom(t *testing.T) {
	const want = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	h := sha256.New()
	h.Write([]byte("abc"))
	if a, b := FromBytes([]byte("abc")), FromHash(h); a != want || b != want {
		t.Errorf("got %s and %s, want %s", a, b, want)
	}
}

func FuzzParse(f *testing.F) {
	seeds := []string{"", "sha256:", "sha512:" + strings.Repeat("0", 128), "sha256:" + strings.Repeat("af", 32), "sha256:../../x"}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDigest(s)
		id, idErr := ParseDiffID(s)
		if (err == nil) != (idErr == nil) || string(d) != string(id) {
			t.Errorf("%q: digest %q, %v; diffID %q, %v", s, d, err, id, idErr)
		}
		if err != nil && d != "" || err == nil && (string(d) != s || strings.ContainsAny(d.Hex(), "/.") || len(d.Hex()) != 64) {
			t.Errorf("%q became %q, %v", s, d, err)
		}
	})
}
