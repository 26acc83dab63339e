// Package daemon serves the protocol of package api on a Unix socket of a user. It
// decodes requests, calls package machine, which does the work, and encodes the
// results.
//
// The state of a machine is on disk and in the kernel, never only in this process,
// so the daemon can be killed at any moment. Each machine has a supervisor, a
// process of its own that outlives the daemon. The daemon uses the images and
// kernels of this host and pulls none.
//
// The files are named for their tasks. listen takes the socket, peer accepts
// connections, serve runs the daemon from start to shutdown. server receives the
// requests, route lists the routes, and machine, start, stop, stream and report
// have their handlers. convert translates between the types of packages api and
// machine. boot starts machines, watch waits for the ends of their supervisors, and
// lock lets one request at a time change a machine.
package daemon
