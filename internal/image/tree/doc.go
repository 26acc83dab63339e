// Package tree merges the tables of contents of an image's layers into one
// tree of inodes, and holds that tree.
//
// The package works on metadata alone: it does not open, write or look up
// anything in the host's file system. This protects the host from hostile
// images. If a program replays tar entries onto a folder, the kernel follows
// the symlinks that earlier entries made, and an image can write outside of
// the folder. Here a path is only a walk over nodes in memory. This package
// alone defines how layers combine: whiteouts, opaque directories, hard links,
// implied parents, and the names that it refuses.
//
// An image may hold millions of inodes, so the tree is compact: about 100
// bytes per inode with its name. Nodes are records without pointers, in chunks
// that never move, and names are in one arena.
package tree
