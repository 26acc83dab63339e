// Package daemon serves the protocol of package api on a Unix socket of a user. It
// decodes requests, calls package machine, which does the work, and encodes the
// results.
//
// The state of a machine is on disk and in the kernel, never only in this process,
// so the daemon can be killed at any moment. Each machine has a supervisor, a
// process of its own that outlives the daemon. The daemon uses the images and
// kernels of this host and pulls none.
//
// The code is grouped by task. listen takes the socket, peer accepts connections,
// route answers requests. machine, start, stop, stream and report have the handlers
// of the routes; convert translates between the types of packages api and machine.
// lock lets one request at a time change a machine. watch waits for the ends of
// supervisors.
package daemon
