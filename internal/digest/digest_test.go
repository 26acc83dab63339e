package digest

import (
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
			t.Errorf("%s: %q was taken", name, s)
		}
	}
	if Digest("").Short() != "" {
		t.Error("the empty digest has a short form")
	}
}
