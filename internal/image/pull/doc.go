// Package pull turns a SOURCE, such as a registry reference or an
// archive, into an image's configuration and readers of its layers as they
// are stored. All bytes are checked against the digest and size that name
// them, while they stream.
//
// Nothing that comes from outside is trusted: documents, lists, names,
// redirects, headers and error bodies are bounded, and what has no bound of
// its own ends with the descriptor's size. No path of an image becomes a path
// of the host: blobs are found by digest, archives are read in place by
// offset. Decompression and the check of diffIDs are package layer's, so that
// a layer is read once.
package pull
