// Package ledger keeps the list of the host's resources that one machine
// holds: processes, sockets, taps, loop and device-mapper devices, nftables
// tables, disks, folders. The owner of a machine enters a resource BEFORE it
// makes it and strikes the entry off AFTER it has removed it. So the process
// that recovers the machine after a crash finds in the list every resource that
// may be left. Package resource knows how the resource of an entry looks on the
// host, and how it is made and removed.
//
// The list is kept twice: as handles.json in the machine's folder, and as a
// section of the machine's record, a file that the caller writes. Each copy has
// the version of its format, the machine's ID, a generation and a checksum. The
// newest intact copy counts. A damaged copy is reported and kept under another
// name; it is never deleted.
//
// The package touches no resource and takes no lock on files: one process, the
// owner of the machine, is the only one to change its ledger.
package ledger
