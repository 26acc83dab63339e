package pull

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// platform is an operating system and an architecture in normal form:
// architectures have Go's names, and the architecture's first variant is "".
type platform struct {
	os, arch, variant string
}

func (p platform) String() string {
	s := p.os + "/" + p.arch
	if p.variant != "" {
		s += "/" + p.variant
	}
	return s
}

// architectures are names of architectures that parsePlatform takes without an
// operating system, besides the aliases of newPlatform.
var architectures = []string{"386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x"}

func isArchitecture(s string) bool {
	return slices.Contains(architectures, newPlatform("", s, "").arch)
}

// parsePlatform parses os/arch[/variant] or arch[/variant]. If s is "", it
// returns linux on this host's architecture.
func parsePlatform(s string) (platform, error) {
	if s == "" {
		return newPlatform("linux", runtime.GOARCH, ""), nil
	}
	if first, _, _ := strings.Cut(s, "/"); isArchitecture(first) {
		s = "linux/" + s
	}
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
		return platform{}, fmt.Errorf("platform %q: want os/arch, os/arch/variant or an architecture such as amd64", s)
	}
	parts = append(parts, "")
	return newPlatform(parts[0], parts[1], parts[2]), nil
}

// newPlatform returns a platform in normal form. The aliases are those of
// containerd's platforms library (database.go, normalizeArch).
func newPlatform(os, arch, variant string) platform {
	p := platform{printable(strings.ToLower(os)), printable(strings.ToLower(arch)), printable(strings.ToLower(variant))}
	switch p.arch {
	case "i386":
		p.arch, p.variant = "386", ""
	case "x86_64", "x86-64", "amd64":
		p.arch = "amd64"
		if p.variant == "v1" {
			p.variant = ""
		}
	case "aarch64", "arm64":
		p.arch = "arm64"
		if p.variant == "8" || p.variant == "v8" || p.variant == "v8.0" {
			p.variant = ""
		}
	case "armhf":
		p.arch, p.variant = "arm", "v7"
	case "armel":
		p.arch, p.variant = "arm", "v6"
	case "arm":
		if p.variant == "" {
			p.variant = "v7"
		} else if !strings.HasPrefix(p.variant, "v") {
			p.variant = "v" + p.variant
		}
	}
	return p
}

// fits reports how well an image for have fits p: 0 is an exact match, a larger
// number is an older variant, and -1 is no match. A newer processor runs images
// for older processors of its architecture. Another architecture never matches,
// even if the processor can run its programs, because the platform is pinned.
func (p platform) fits(have platform) int {
	if p.os != have.os || p.arch != have.arch {
		return -1
	}
	if p.variant == have.variant {
		return 0
	}
	want, okWant := p.level()
	got, okGot := have.level()
	if !okWant || !okGot || got > want {
		return -1
	}
	return want - got
}

// level returns the variant as a number, for comparison: v8.2 is 802. It returns
// false if the variant or its architecture is unknown.
func (p platform) level() (int, bool) {
	v := p.variant
	if v == "" {
		v = map[string]string{"amd64": "v1", "arm64": "v8"}[p.arch]
	}
	v, ok := strings.CutPrefix(v, "v")
	if !ok || !slices.Contains([]string{"amd64", "arm", "arm64"}, p.arch) {
		return 0, false
	}
	major, minor, _ := strings.Cut(v, ".")
	n, err := strconv.Atoi(major)
	if err != nil || n < 0 || n > 99 {
		return 0, false
	}
	m := 0
	if minor != "" {
		if m, err = strconv.Atoi(minor); err != nil || m < 0 || m > 99 {
			return 0, false
		}
	}
	return n*100 + m, true
}

// CheckPlatform returns an error if an image for the platform have must not run where
// the platform want is asked for. An image may name no platform: it fits every one. The
// error is a *PlatformError, or that of a malformed want.
func CheckPlatform(want, have string) error {
	w, err := parsePlatform(want)
	if err != nil {
		return err
	}
	h, err := parsePlatform(have)
	if have == "" || err != nil {
		return nil //nolint:nilerr // the image names no platform
	}
	if w.fits(h) < 0 {
		return &PlatformError{Want: w.String(), Have: []string{h.String()}}
	}
	return nil
}
