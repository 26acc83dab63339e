// Package qemu runs machines with QEMU. It owns QEMU's command line, its
// process, its control socket (QMP) and the choice between KVM and TCG.
//
// QEMU gets everything it needs open and nothing else: disks, kernel, initramfs
// and listening sockets are opened here and passed as file descriptors. So no
// path of the user's reaches QEMU's option parser, an error in opening names
// the file, the sockets exist before the process does, and a QEMU that root
// starts runs as an unprivileged user from its first instruction.
//
// The package refuses whatever QEMU's option parser could read as something
// else (commas, control characters), and it starts no helpers: no shell, no
// network scripts, no exec migration.
package qemu
