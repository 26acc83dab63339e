// Package supervisor is the process that owns one running machine, from its
// start to its end and over its restarts. It boots the machine under a monitor,
// runs the main command through the agent in the guest, serves the requests of
// the user's other processes on the control socket, and gives back all
// resources at the end. The monitor's process dies with it.
//
// One event loop owns the state of the machine. Requests and the steps of a
// machine's life post events to the loop; the table transitions gives the next
// state and the action for each. Steps that block (boot, run, settle, finish)
// run beside the loop, one at a time, and end with an event. stop and kill, the
// events of requests, change nothing in the other states but the cause of the
// end, which keeps the restart policy from booting the machine again:
//
//	             +----------------------------------- restartDue -------------------------------+
//	             v                                                                              |
//	start --> booting -- bootSucceeded --> running -- machineEnded --> settling -- willRestart --> backingOff
//	          |  |  |                         |                        ^  ^  |                        |
//	          |  |  |                    stop, kill                    |  |  |                   stop, kill
//	          |  |  |                         v                        |  |  |                        |
//	          |  |  |                      stopping -- machineEnded ---+  |  +-- willFinish --+       |
//	          |  |  +-- bootFailed ---------------------------------------+                  v       v
//	          |  +-- stop, kill --> cancelling -- bootFailed -------------+                  finishing
//	          |                         |                                                        |
//	          |                  firstBootFailed                                             finished
//	          |                         v                                                        v
//	          +-- firstBootFailed --> abandoning -- finished -------------------------------> ended
//
// The package imports nothing of the daemon's side of a machine.
package supervisor
