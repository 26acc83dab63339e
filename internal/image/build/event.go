package build

import "github.com/banger-vm/banger/internal/base/digest"

// Step is a part of the work, as progress reports name it.
type Step string

// The steps in the order in which they begin.
const (
	StepResolve Step = "resolve" // Text is the source
	StepLayer   Step = "layer"   // bytes as stored, read so far; Text is "cached" where none need be
	StepMerge   Step = "merge"   // Done is the number of inodes
	StepBuild   Step = "build"   // bytes of file content
	StepNotice  Step = "notice"  // Text is a remark, such as a retry
)

// Event tells how far a step is. Events of layers come from several
// goroutines at once.
type Event struct {
	Step     Step          `json:"step"`
	Layer    int           `json:"layer,omitempty"`  // 1 is the oldest
	Layers   int           `json:"layers,omitempty"` // how many there are
	Digest   digest.Digest `json:"digest,omitempty"` // of the layer as stored
	Done     int64         `json:"done,omitempty"`
	Total    int64         `json:"total,omitempty"` // 0 when not known
	Finished bool          `json:"finished,omitempty"`
	Text     string        `json:"text,omitempty"`
}
