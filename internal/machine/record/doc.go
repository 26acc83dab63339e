// Package record owns a machine's folders: the record, the ledger and the lock
// in them. It finds machines, locks them, changes their records, and gives
// back the resources that their ledgers list.
//
// A machine has two folders, both named by its ID and private to the user.
// TAG is a short hash of the path DATA, because a user may have several data
// folders and has one runtime folder:
//
//	DATA/machines/ID/    record.json, handles.json, the disk, logs; the lock
//	RUNTIME/TAG/ID/      sockets, keys, initramfs; nothing that must last
//
// The process that changes a machine holds the lock of its data folder. While
// the machine runs, that process is its supervisor. So a machine whose folder
// is not locked does not run.
//
// The package starts no process and knows nothing of monitors or guests.
package record
