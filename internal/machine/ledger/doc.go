// Package ledger is the list of what one machine holds of its host: processes,
// sockets, taps, loop and device-mapper devices, network namespaces, nftables
// tables, disks, folders. An entry is written BEFORE its resource is made and
// struck off AFTER it is gone, so that whoever comes after a crash finds all
// that may be left. What an entry's resource is like on the host, and how it
// is made and removed, is package resource's.
//
// The list is kept twice: as handles.json in the machine's folder, and as a
// section of the machine's record, which is the caller's file. Each copy has
// the version of its format, the machine's ID, a generation and a checksum.
// The newest copy that is intact counts. One that is not is set aside under
// another name, never deleted, and told of.
//
// The package touches no resource, and locks nothing: the machine's owner,
// one process, is the only one to change its ledger.
package ledger
