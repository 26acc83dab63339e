// Package vm is one machine's life: its folder and disk, its start under a
// virtual machine monitor, the connection to the agent inside it, its main
// command, its end, and the sweep of what killed owners left.
//
// A machine has two folders, both named by its ID and private to the user;
// <root> is a short hash of DATA's path:
//
//	DATA/machines/<id>/     record.json, the disk, logs; locked by the owner
//	RUNTIME/<root>/<id>/    sockets, keys, initramfs; nothing that must last
//
// The owner of a running machine is one process. It holds the lock of the
// data folder while it lives, and the monitor's process dies with it. So a
// folder that is not locked belongs to a machine that does not run. The disk
// is a copy-on-write clone: the image's own disk is never written.
//
// The package prints nothing, and knows neither registries nor flags.
package vm
