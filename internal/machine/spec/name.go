package spec

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"regexp"
	"strings"
)

// nameForm is the form of docker's container names. A name is short enough
// for a hostname, too: 64 bytes, HOST_NAME_MAX of linux/limits.h.
var nameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$`)

// idForm is the form of a machine's ID: 12 hexadecimal digits, chosen at random.
var idForm = regexp.MustCompile(`^[0-9a-f]{12}$`)

// IsID reports whether text has the form of a machine's ID.
func IsID(text string) bool { return idForm.MatchString(text) }

// IsName reports whether text has the form of a machine's name. A name that
// looks like an ID has it too: CheckName refuses those for new machines.
func IsName(text string) bool { return nameForm.MatchString(text) }

// CheckName returns an *InputError if no machine can have the name.
func CheckName(name string) error {
	if !nameForm.MatchString(name) {
		return Errorf("machine name %q: want letters, digits, '_', '.' and '-', at most 63", name)
	}
	if idForm.MatchString(name) {
		return Errorf("machine name %q: 12 hexadecimal digits are an ID", name)
	}
	return nil
}

// The words of made-up names: short, kind, and easy to distinguish when
// spoken.
const (
	adjectives = `able agile amber apt bold brave brisk calm candid clear clever cosy crisp curly deft eager early
		easy even fair fancy fine fleet fluffy fond frank fresh gentle glad golden grand happy hardy honest humble jolly
		keen kind late lively loyal lucid lucky mellow merry mild modest neat nimble noble patient plain polite prime
		proud quick quiet rapid ready round rustic serene shiny silent silver simple smart snug sober solid spry stable
		steady still sunny sure swift tidy tiny tranquil trusty upbeat urban vivid warm wary wide willing wise witty young`
	nouns = `acorn alder ant badger basil beaver birch bison brook canary cedar clover comet condor coral cricket crow
		daisy delta dune egret elm ember falcon fern finch fjord fox gecko glade hare harbor hawk hazel heron hill ibex
		island ivy jackdaw jay juniper kestrel kite lagoon lark lemur lily linden lynx magpie maple marten meadow moss
		moth newt oak olive orca osprey otter owl panda pebble pine plover pond poppy puffin quail rabbit raven reef
		river robin rook sage seal shore sparrow spruce stork swan thistle tiger toad trout tulip turtle valley walnut
		warbler weasel willow wolf wren yak`
)

// NewName makes up a name of two words, such as calm-otter.
func NewName() string {
	first, second := strings.Fields(adjectives), strings.Fields(nouns)
	return first[random(len(first))] + "-" + second[random(len(second))]
}

// LongName makes up a name with a number, for hosts that have many machines.
func LongName() string {
	const numbers = 10000
	return fmt.Sprintf("%s-%d", NewName(), random(numbers))
}

// random returns a number from 0 to n-1.
func random(n int) int {
	var b [4]byte
	rand.Read(b[:])
	return int(binary.LittleEndian.Uint32(b[:]) % uint32(n))
}
