// Package machine is one machine's life: its record, ledger and disk, its start
// under a virtual machine monitor, the connection to the agent inside it, its
// main command, its end, and the reconciling of what is recorded with what
// the host shows after whatever was killed.
//
// A machine has two folders, both named by its ID and private to the user;
// <root> is a short hash of DATA's path:
//
//	DATA/machines/<id>/     record.json, handles.json, the disk, logs; locked by who works on it
//	RUNTIME/<root>/<id>/    sockets, keys, initramfs; nothing that must last
//
// Whoever changes a machine holds the lock of its data folder. While it runs
// that is its supervisor, a process of its own (Supervise), to which the
// process that called Start has passed the lock on. The monitor's process dies
// with the supervisor. So a folder that is not locked belongs to a machine
// that does not run. The image's own disk is never written.
//
// Other processes reach a supervisor by its control socket: Exec, Attach,
// Stop, Kill, Wait, Stats and Archive are requests to it, whose frames are
// those of package api.
//
// The package prints nothing, and knows neither registries nor flags.
package machine
