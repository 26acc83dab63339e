// Package resource makes, removes and finds what package ledger lists: what
// machines hold of the host.
//
// Each is made in the order note, make, identify, and carries its owner's mark
// from the instant at which it can outlive this process:
//
//	process   BANGER_MACHINE=<owner>/<name> in its environment
//	tap       bgr<id>, with the alias "banger <owner>"
//	nftables  table inet banger_<owner>, its '-' written as '_'
//	dm        banger-<id>-<name>, with the UUID BANGER-<owner>-<name>
//	loop      the file name banger-<owner>-<name> in its status, lo_file_name of loop(4)
//	files     a folder of the machine's ID in their path
//
// where <owner> is the machine's ID and the number of its data folder, as
// ledger.Owner has it.
//
// Nothing is removed for its name or number alone. A resource must have the
// mark, and where the entry says more (start time, interface index, inode),
// that must be so too. What is not so is somebody else's, and the resource of
// the entry is gone. Removal is idempotent.
//
// All is done by system calls; no program is run. Taps and tables are those of
// the calling thread's network namespace.
package resource
