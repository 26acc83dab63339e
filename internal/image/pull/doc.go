// Package pull resolves a SOURCE, such as a registry reference or an archive,
// to an image's configuration and to readers of its layers as stored. While
// content streams, the package compares it with the digest and the size that
// the image's documents give for it.
//
// The package trusts no input. Documents, lists, names, redirects, headers and
// error bodies have limits; all other content ends at the size in its
// descriptor. No path of an image becomes a path of the host: the package finds
// blobs by digest and reads archives in place, by offset. Package layer
// decompresses the layers and checks their diffIDs, because each layer is read
// only once.
package pull
