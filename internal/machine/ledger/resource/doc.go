// Package resource makes, finds and removes the resources that package ledger
// lists: the processes, devices and files of the host that machines hold.
//
// A Maker makes each resource in three steps: it notes the entry in the ledger,
// makes the resource, and adds to the entry the numbers by which the resource is
// identified. The resource carries its owner's mark from the moment at which it
// can outlive this process:
//
//	process   BANGER_MACHINE=<owner>/<name> in its environment
//	tap       the name bgr<id> and the alias "banger <owner>"
//	nftables  the table inet banger_<owner>, with '_' for the '-' of <owner>
//	dm        the name banger-<id>-<name> and the UUID BANGER-<owner>-<name>
//	loop      the file name banger-<owner>-<name> in its status, lo_file_name of loop(4)
//	files     the machine's ID as an element of their path
//
// <owner> is the machine's ID and the number of its data folder, as in
// ledger.Owner. <name> is the role of the resource in its machine.
//
// Remove removes no resource for its name or number alone. The resource must
// carry the mark, and it must agree with the fields that the entry has beside:
// start time, interface index, inode. If it does not, it belongs to another
// owner and the resource of the entry no longer exists: Remove leaves it alone
// and returns nil. So Remove is idempotent.
//
// Taps and nftables tables have no caller yet: they are for the network's tap
// mode, which joins a machine of root to the host by netlink and nftables. Both
// are made in the network namespace of the calling thread.
//
// The package works by system calls and runs no program.
package resource
