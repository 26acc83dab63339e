package spec

// A Driver selects how a machine's disk is made from the image's disk.
type Driver string

// The drivers.
const (
	Auto    Driver = "auto"    // the first of Reflink, Overlay and Copy that works
	Reflink Driver = "reflink" // shares the extents of the image's disk
	Overlay Driver = "overlay" // a QCOW2 file over the image's disk
	DM      Driver = "dm"      // a device mapper snapshot over the image's disk; needs root
	Copy    Driver = "copy"    // a copy of the image's disk, without its holes
	Shared  Driver = "shared"  // the image's disk itself, for read-only machines; a user cannot select it
)

// A RestartPolicy selects when a machine that has ended is booted again.
type RestartPolicy string

// The policies, which are docker's.
const (
	RestartNo            RestartPolicy = "no"
	RestartOnFailure     RestartPolicy = "on-failure" // if the exit code is not 0
	RestartAlways        RestartPolicy = "always"
	RestartUnlessStopped RestartPolicy = "unless-stopped"
)

// Restart is a policy with its bound.
type Restart struct {
	Policy  RestartPolicy `json:"policy,omitempty"`  // "" is RestartNo
	Retries int           `json:"retries,omitempty"` // of RestartOnFailure; 0 is no bound
}
