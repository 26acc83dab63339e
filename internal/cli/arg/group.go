package arg

import (
	"slices"

	"github.com/spf13/pflag"
)

// The groups of flags, in the order of help texts.
const (
	MachineFlags = "Machine flags"
	CommandFlags = "Command flags"
	ImageFlags   = "Image flags"
	DiskFlags    = "Disk flags"
)

const groupKey = "group"

// FlagGroup puts the flags of the names into a group of the help text.
func FlagGroup(flags *pflag.FlagSet, group string, names ...string) {
	for _, name := range names {
		if f := flags.Lookup(name); f != nil {
			if f.Annotations == nil {
				f.Annotations = map[string][]string{}
			}
			f.Annotations[groupKey] = []string{group}
		}
	}
}

// GroupOf returns the group of a flag, or "".
func GroupOf(f *pflag.Flag) string {
	if group := f.Annotations[groupKey]; len(group) > 0 {
		return group[0]
	}
	return ""
}

// CompareGroups orders groups as help texts show them; "" is the last.
func CompareGroups(a, b string) int {
	order := []string{MachineFlags, CommandFlags, ImageFlags, DiskFlags, ""}
	return slices.Index(order, a) - slices.Index(order, b)
}
