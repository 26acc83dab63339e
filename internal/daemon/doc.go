// Package daemon serves the protocol of package api on a user's socket: it
// decodes requests, calls vm, which does the work, and encodes what it says.
//
// What is true of a machine is on disk and in the kernel, nowhere in this
// process, so that the daemon may end or be killed at any moment. It owns no
// machine: each has a supervisor, a process of its own. The daemon knows of
// no image or kernel that is not on this host, and pulls none.
package daemon
