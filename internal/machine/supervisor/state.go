package supervisor

// A state is the state of a machine as its supervisor sees it.
type state string

const (
	booting    state = "booting"    // from the start of the monitor until the agent answers
	cancelling state = "cancelling" // a stop was requested while the machine booted
	running    state = "running"    // the agent answers; the main command runs, if there is one
	stopping   state = "stopping"   // a stop was requested while the machine ran
	settling   state = "settling"   // the machine is down; its end is recorded, its resources are given back
	backingOff state = "backingOff" // waits before it boots again
	finishing  state = "finishing"  // gives back all resources, with the machine itself if it is to be removed
	abandoning state = "abandoning" // undoes a first boot that failed
	ended      state = "ended"      // the supervisor's process may exit
)

// An event changes the state of a machine.
type event string

const (
	bootSucceeded   event = "bootSucceeded"   // the agent answers, and the machine is recorded as running
	bootFailed      event = "bootFailed"      // after the machine has run once
	firstBootFailed event = "firstBootFailed" // the machine has never run
	stopRequested   event = "stopRequested"   // by a user or by a signal to the supervisor
	killRequested   event = "killRequested"   // by a user
	machineEnded    event = "machineEnded"    // the main command has ended and the machine is down
	willRestart     event = "willRestart"     // settled, and the policy boots the machine again
	willFinish      event = "willFinish"      // settled, and the machine stays down
	restartDue      event = "restartDue"      // the wait is over
	finished        event = "finished"        // everything is given back
)

// An action is the work that a transition starts.
type action string

const (
	none          action = ""
	cancelBoot    action = "cancelBoot"
	runMain       action = "runMain"     // run the main command, and wait for the end of the machine
	powerOff      action = "powerOff"    // ask the guest to end, and kill it after the grace
	killMonitor   action = "killMonitor" // as pulling the plug
	settle        action = "settle"      // record the end, give back the resources of this boot
	waitToRestart action = "waitToRestart"
	boot          action = "boot"
	finish        action = "finish"
	abandon       action = "abandon"
)

// A transition is the next state and the action that takes the machine there.
type transition struct {
	next   state
	action action
}

// transitions returns the table of all transitions. An event that a state has
// no row for cannot occur in it.
//
// stopRequested and killRequested have a row in each state. Where the action is
// none, the loop only notes the cause, which keeps the policy from booting the
// machine again.
func transitions() map[state]map[event]transition {
	return map[state]map[event]transition{
		booting: {
			bootSucceeded:   {running, runMain},
			bootFailed:      {settling, settle},
			firstBootFailed: {abandoning, abandon},
			stopRequested:   {cancelling, cancelBoot},
			killRequested:   {cancelling, cancelBoot},
		},
		cancelling: {
			bootFailed:      {settling, settle}, // also if it was too late to cancel the boot
			firstBootFailed: {abandoning, abandon},
			stopRequested:   {cancelling, none},
			killRequested:   {cancelling, none},
		},
		running: {
			machineEnded:  {settling, settle},
			stopRequested: {stopping, powerOff},
			killRequested: {stopping, killMonitor},
		},
		stopping: {
			machineEnded:  {settling, settle},
			stopRequested: {stopping, powerOff}, // perhaps with a shorter grace
			killRequested: {stopping, killMonitor},
		},
		settling: {
			willRestart:   {backingOff, waitToRestart},
			willFinish:    {finishing, finish},
			finished:      {ended, none}, // a resource could not be given back: the daemon tries again
			stopRequested: {settling, none},
			killRequested: {settling, none},
		},
		backingOff: {
			restartDue:    {booting, boot},
			stopRequested: {finishing, finish},
			killRequested: {finishing, finish},
		},
		finishing: {
			finished:      {ended, none},
			restartDue:    {finishing, none}, // the wait ended when the stop was requested
			stopRequested: {finishing, none},
			killRequested: {finishing, none},
		},
		abandoning: {
			finished:      {ended, none},
			stopRequested: {abandoning, none},
			killRequested: {abandoning, none},
		},
		ended: {
			stopRequested: {ended, none},
			killRequested: {ended, none},
		},
	}
}
