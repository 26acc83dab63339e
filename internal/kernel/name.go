package kernel

import "strings"

// DefaultName is the name of the kernel that a machine gets if its user names
// none. The catalog of package source has an entry of that name.
const DefaultName = "default"

const (
	maxName    = 128 // bytes
	maxRelease = 64  // bytes: __NEW_UTS_LEN of include/uapi/linux/utsname.h
	nameChars  = "abcdefghijklmnopqrstuvwxyz0123456789"
)

// IsName reports whether s can be the name of a kernel.
func IsName(s string) bool {
	return s != "" && len(s) <= maxName && strings.Trim(strings.ToLower(s), nameChars+"+-._~") == "" &&
		strings.Contains(nameChars, strings.ToLower(s[:1]))
}

// IsRelease reports whether s can be the release of a kernel as uname -r prints
// it, such as 6.1.0-56-cloud-amd64. Such a string is safe as a part of a file
// name.
func IsRelease(s string) bool {
	return s != "" && len(s) <= maxRelease && s[0] >= '0' && s[0] <= '9' &&
		strings.Trim(strings.ToLower(s), nameChars+"+-._~") == ""
}

// ModuleName returns the canonical form of a module's name. The kernel and
// modprobe(8) treat '-' and '_' as equal; the canonical form has '_'.
func ModuleName(s string) string { return strings.ReplaceAll(s, "-", "_") }
