// Package ext4 writes a tree as an ext4 file system and reads such file
// systems back.
//
// The writer lays out a whole disk before it writes the first byte: Plan is a
// function of the tree and the options alone, so that the same image gives the
// same bytes on every host, and all that ext4 cannot hold is refused before
// anything is written. It makes new disks only; it never changes one.
//
// The reader trusts nothing on the disk. The two have no knowledge of the
// format in common but for constants, so that they can check each other.
package ext4
