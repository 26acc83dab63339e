// Package source gets kernels and installs them in a store: from packages (apt
// or files), images, bundles, separate files, or this host. It also writes a
// kernel of a store as a bundle, the form that carries it to another store.
//
// Pull converts every archive into a file system on a scratch disk with package
// build, which applies all the checks of an image's layer, and reads the files
// from there. So no path in a foreign archive becomes a path on the host. It
// then builds the kernel's folder from the kernel, the configuration and the
// modules that it finds, and publishes the folder in the store.
//
// The package knows no download host: apt and package pull download from the
// places in the user's configuration.
package source
