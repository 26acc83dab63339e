// Package e2fs builds ext4 disks with the programs of e2fsprogs. It stages a
// tree in a private folder, runs mkfs.ext4 to copy that folder into a new file
// system, and sets the metadata that staging cannot express with one debugfs
// script. It needs no root, no mount and no loop device. It does the same if
// it runs as root, so root and a plain user make the same disk. The tests of
// banger's own ext4 writer compare its disks with those of this package.
//
// The package guards two boundaries. First, a path of an image never becomes
// a path of the host: staging creates one name at a time in a folder that it
// holds open (os.Root), below a folder that other users cannot enter. Second,
// debugfs reads commands as lines of text and continues after errors. So this
// package refuses names that cannot be part of such a line, addresses inodes
// by number if a command allows it, and checks every line of debugfs's output.
//
// Result.Warnings lists the metadata that these programs cannot store.
package e2fs
