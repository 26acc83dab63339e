// Package layer reads the stream of one layer, as it is stored, and takes it
// apart into a table of contents and the bodies of its files.
//
// The names in a layer are only strings here: nothing is looked up, followed
// or written on the host because of them. What entries mean together is
// decided by package tree; this package checks that the stream is what its
// diffID says, that it is a sound tar, and that it keeps to the limits.
//
// Tar is read by this package itself: the forms that occur in layers (USTAR,
// GNU and PAX headers, all sparse formats) with the hole maps that the
// standard library's reader does not give, and several times as fast. The
// standard library is the oracle in its tests.
package layer
