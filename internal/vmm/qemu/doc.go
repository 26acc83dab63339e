// Package qemu runs machines with QEMU. It owns QEMU's command line, its
// process, its control socket (QMP) and the choice between KVM and TCG.
//
// The package opens the disks, the kernel, the initramfs and the listening
// sockets, and passes them to QEMU as file descriptors; QEMU opens no files of
// the user. So QEMU's option parser sees none of the user's paths, an error in
// opening a file has its name, the sockets exist before the process does, and a
// QEMU that root starts runs as an unprivileged user from its first
// instruction.
//
// Package confine restricts the process to the files of its program, which are
// in rules.go, and to the descriptors.
//
// The package refuses values that QEMU's option parser could misinterpret
// (commas, control characters). It starts no helpers: no shell, no network
// scripts, no exec migration.
package qemu
