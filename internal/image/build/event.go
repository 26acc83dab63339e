package build

import "github.com/banger-vm/banger/internal/base/digest"

// Step names a step of a build in progress reports.
type Step string

// The steps in the order of their start.
const (
	StepResolve Step = "resolve" // Text is the source
	StepLayer   Step = "layer"   // Done counts bytes as stored; Text is "cached" if the layer need not be read
	StepMerge   Step = "merge"   // Done is the number of inodes
	StepBuild   Step = "build"   // Done counts bytes of file content
	StepNotice  Step = "notice"  // Text is a remark, such as a retry
)

// Event reports the progress of a step. Several goroutines send events of layers
// concurrently.
type Event struct {
	Step     Step          `json:"step"`
	Layer    int           `json:"layer,omitempty"`  // 1 is the oldest
	Layers   int           `json:"layers,omitempty"` // number of layers
	Digest   digest.Digest `json:"digest,omitempty"` // of the layer as stored
	Done     int64         `json:"done,omitempty"`
	Total    int64         `json:"total,omitempty"` // 0 if not known
	Finished bool          `json:"finished,omitempty"`
	Text     string        `json:"text,omitempty"`
}
