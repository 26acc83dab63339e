// Package tree merges the tables of contents of an image's layers into one
// tree of inodes, and holds that tree.
//
// It works on metadata alone: it opens nothing, writes nothing and knows
// nothing of the host's file system. That is the point of it. Replaying tar
// entries onto a folder is where the attacks of hostile images live, since
// the kernel follows what an earlier entry has planted; here a path is a walk
// over nodes in memory and has no other meaning. What layers mean — whiteouts,
// opaque directories, hard links, implied parents, and which names are
// refused — is decided here and nowhere else.
//
// The tree is compact (about 100 bytes an inode with its name), since an
// image may hold millions of inodes: nodes are records without pointers in
// chunks that never move, and names lie in one arena.
package tree
