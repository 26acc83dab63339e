// Package layer reads the stored stream of one layer and splits it into a
// table of contents and the bodies of its files.
//
// The package treats the names in a layer as plain strings: it never looks
// up, follows or writes a path of the host because of a name. It checks that
// the stream matches its diffID, that it is a valid tar, and that it stays
// within the limits. Package tree decides how entries combine: whiteouts,
// hard links and the entries that later layers replace.
//
// The package has its own tar reader. It reads the formats that occur in
// layers (USTAR, GNU and PAX headers, all sparse formats), returns the hole
// maps that archive/tar does not expose, and is several times as fast. The
// tests compare it with archive/tar.
package layer
