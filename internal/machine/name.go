package machine

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// nameForm is that of docker's container names, and short enough for a
// hostname (64 bytes, HOST_NAME_MAX of linux/limits.h).
var nameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$`)

func checkName(name string) error {
	if !nameForm.MatchString(name) {
		return inputf("machine name %q: want letters, digits, '_', '.' and '-', at most 63", name)
	}
	if idForm.MatchString(name) {
		return inputf("machine name %q: 12 hexadecimal digits are an ID", name)
	}
	return nil
}

// The words of names that are made up: short, kind, and easy to tell apart
// when spoken.
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

// newName makes a name up, as calm-otter.
func newName() string {
	first, second := strings.Fields(adjectives), strings.Fields(nouns)
	return first[random(len(first))] + "-" + second[random(len(second))]
}

// longName is newName for a store that has many of those.
func longName() string {
	const numbers = 10000
	return fmt.Sprintf("%s-%d", newName(), random(numbers))
}

// random returns a number from 0 to n-1.
func random(n int) int {
	var b [4]byte
	rand.Read(b[:])
	return int(binary.LittleEndian.Uint32(b[:]) % uint32(n))
}

// Rename gives a machine another name, whether it runs or not. The error is
// ErrNameTaken when another has it.
func (s *Store) Rename(ctx context.Context, id, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return s.outlast(ctx, id, func() error {
		return s.locked(ctx, func() error { return s.rename(ctx, id, name) })
	})
}

func (s *Store) rename(ctx context.Context, id, name string) error {
	others, _, err := s.list()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(others, func(o *Record) bool { return o.Config.Name == name && o.ID != id }) {
		return fmt.Errorf("machine %s: %w", name, ErrNameTaken)
	}
	dir, err := s.lock(id)
	if errors.Is(err, ErrRunning) {
		return s.renameLocked(ctx, id, name)
	}
	if err != nil {
		return err
	}
	defer dir.unlock()
	rec, err := readRecord(dir.data)
	if err != nil {
		return err
	}
	rec.Config.Name = name
	return rec.write(dir.data)
}

// renameLocked has the owner of a machine write the name.
func (s *Store) renameLocked(ctx context.Context, id, name string) error {
	rec, err := readRecord(s.dataDir(id))
	if err != nil {
		return err
	}
	if rec.State != StateRunning {
		return fmt.Errorf("machine %s: %w", rec.Config.Name, ErrRunning)
	}
	return s.renameRunning(ctx, rec, name)
}
