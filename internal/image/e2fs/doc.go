// Package e2fs builds ext4 disks with the programs of e2fsprogs: it stages a
// tree in a private folder, has mkfs.ext4 copy that folder into a new file
// system, and gives the inodes there what staging could not express, in one
// debugfs script. It needs no root, no mount and no loop device, and as root
// it does the same, so that both make the same disk. It is the reference
// that banger's own writer is held against.
//
// Two borders are guarded here. What an image says never becomes a path of
// the host: staging creates one name at a time below folders held open
// (os.Root), in a folder that nobody else can enter. And debugfs takes
// commands as lines of text and goes on after errors, so names that such a
// line cannot carry are refused, inodes are addressed by number wherever a
// command allows it, and every line of its output is accounted for.
//
// What these programs cannot store is reported in Result.Warnings, by name.
package e2fs
