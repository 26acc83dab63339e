//go:build !amd64

package boot

// isPC is false for other architectures: their firmware powers the machine off
// (PSCI).
const isPC = false
