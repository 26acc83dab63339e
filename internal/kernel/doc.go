// Package kernel keeps kernels: for each a folder with the kernel itself,
// its configuration, its modules as a read-only file system, and a manifest
// with the digests of them all.
//
//	kernels/<hex>/manifest.json   what the rest is; see Manifest
//	kernels/<hex>/kernel          as it was found: a bzImage or an ELF file
//	kernels/<hex>/vmlinux         ELF with a PVH entry, which boots sooner, where there is one
//	kernels/<hex>/config          what the kernel was built with, where it is known
//	kernels/<hex>/modules.ext4    lib/modules/RELEASE, where there are modules
//	kernels/<hex>/modules.json    what each module needs, so that no boot has to read them all
//	kernels/.banger-<random>      scratch folders of running commands
//
// A kernel may come from a package, an image, this host, loose files, or a
// bundle that Export wrote. Nothing of a foreign archive becomes a path on
// the host: an archive is first turned into a file system by package rootfs,
// with all that it refuses in a layer, and read from there. The package knows
// no download host: packages are fetched by apt and images by package
// pull, each from where the user's configuration says.
//
// A folder appears and goes in one step, so that whatever is killed, what is
// there is whole. The package starts no machine and judges no configuration
// beyond naming what banger needs of it.
package kernel
