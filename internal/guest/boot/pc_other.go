//go:build !amd64

package boot

// isPC: machines of other architectures power off by their firmware (PSCI).
const isPC = false
