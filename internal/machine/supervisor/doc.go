// Package supervisor is the process that owns one running machine, from its
// start to its end and over its restarts. It boots the machine under a monitor,
// runs the main command through the agent in the guest, serves the requests of
// the user's other processes on the control socket, and gives back all
// resources at the end. The monitor's process dies with it.
//
// One event loop owns the state of the machine. Requests and the steps of a
// machine's life post events to the loop; the table transitions gives the next
// state and the action for each. Steps that block (boot, run, settle, finish)
// run beside the loop, one at a time, and end with an event:
//
//	          +-------------------- restartDue ---------------------+
//	          v                                                     |
//	start > booting -- booted -----> running -- ended --> settling -+- willRestart > backingOff
//	          |  |                      |                  ^  ^  |                        |
//	          |  +- stop, kill          +- stop, kill      |  |  +- willFinish            +- stop, kill
//	          |        v                      v            |  |        |                  |
//	          |    cancelling -- booted,  stopping -ended -+  |        v                  |
//	          |        |         bootFailed ------------------+    finishing <------------+
//	          |        |                                            ^  |
//	          +--------+- firstBootFailed > abandoning              |  +- finished > ended
//	                                          +----- finished ------|---------------> ended
//
// The package imports nothing of the daemon's side of a machine.
package supervisor
