// Package machine makes, starts, lists, repairs and removes machines. It is the
// daemon's side of a machine's life; the supervisor's side is a process of its
// own, package supervisor, which this package starts and never calls. The two
// share packages: spec (a machine as a user asks for it), bootplan, disk, record
// (folders, record, lock), ledger, logs and control (their protocol).
//
// A Store holds no state of its own. The records on disk and the locks on the
// machines' folders are the state, so several processes may use one store, and
// any of them may be killed at any time.
//
// The package prints nothing, and knows neither registries nor flags.
package machine
