// Package kernel is the store of kernels: it lists, finds, removes and
// publishes them, and returns the files and modules that a machine boots with.
// A kernel is a folder that holds the kernel itself, its configuration, its
// modules as a read-only file system, and a manifest with the digests of all
// files.
//
//	kernels/<hex>/manifest.json   the record; see Manifest
//	kernels/<hex>/kernel          the kernel as its source has it: a bzImage or an ELF file
//	kernels/<hex>/vmlinux         ELF file with a PVH entry, which boots faster; optional
//	kernels/<hex>/config          the kernel's configuration; optional
//	kernels/<hex>/modules.ext4    file system with lib/modules/RELEASE; optional
//	kernels/<hex>/modules.json    names and dependencies of the modules; see Index
//	kernels/.banger-<random>      scratch folders of running commands
//
// The package does not know where kernels come from, and does not import the
// image pipeline: package source gets kernels, builds their disks of modules,
// and hands them over as a Builder. It starts no machine, and it judges a
// kernel's configuration only to report the features that banger uses.
//
// A kernel's folder appears and disappears in one step, so each folder is
// complete, even after the process that wrote it was killed.
package kernel
