package kernel

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
)

// depmod returns the files that modprobe(8) reads, as depmod(8) would make
// them; packages leave that to their installation. Symbols are left out: the
// kernel asks for modules by name or alias.
//
// order has the place of a module in the order in which they were linked: of
// several modules with one alias the first is tried first.
func depmod(ctx context.Context, x *index, infos []modinfo, order map[string]int) (map[string][]byte, error) {
	byName := map[string]*indexed{}
	for i := range x.Modules {
		byName[x.Modules[i].Name] = &x.Modules[i]
	}
	var dep, alias, soft strings.Builder
	var depIndex, aliasIndex, builtinIndex indexNode
	nodes := 0
	soft.WriteString("# Soft dependencies extracted from modules themselves.\n")
	alias.WriteString("# Aliases extracted from modules themselves.\n")
	for i := range x.Modules {
		m := &x.Modules[i]
		place, ok := order[m.Path]
		if !ok {
			place = len(order) + i
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		line, err := depLine(byName, m, maxDepmod-dep.Len())
		if err != nil {
			return nil, err
		}
		dep.WriteString(line + "\n")
		nodes += depIndex.add(m.Name, line, uint32(place))
		for _, a := range infos[i].aliases {
			alias.WriteString("alias " + a + " " + m.Name + "\n")
			nodes += aliasIndex.add(aliasKey(a), m.Name, uint32(place))
			if alias.Len() > maxDepmod {
				return nil, &LimitError{"bytes of modules.alias", maxDepmod}
			}
			if nodes > maxNodes {
				return nil, &LimitError{"nodes of their indexes", maxNodes}
			}
		}
		for _, s := range infos[i].soft {
			soft.WriteString("softdep " + m.Name + " " + s + "\n")
			if soft.Len() > maxDepmod {
				return nil, &LimitError{"bytes of modules.softdep", maxDepmod}
			}
		}
	}
	for i, name := range x.Builtin {
		nodes += builtinIndex.add(name, "", uint32(i))
		if nodes > maxNodes {
			return nil, &LimitError{"nodes of their indexes", maxNodes}
		}
	}
	return map[string][]byte{
		"modules.dep": []byte(dep.String()), "modules.dep.bin": depIndex.encode(),
		"modules.alias": []byte(alias.String()), "modules.alias.bin": aliasIndex.encode(),
		"modules.softdep": []byte(soft.String()), "modules.builtin.bin": builtinIndex.encode(),
	}, nil
}

// depLine returns the line of modules.dep for m, refusing more than room bytes.
func depLine(byName map[string]*indexed, m *indexed, room int) (string, error) {
	var line strings.Builder
	line.WriteString(m.Path + ":")
	for _, d := range allDepends(byName, m) {
		line.WriteString(" " + d.Path)
		if line.Len() >= room {
			return "", &LimitError{"bytes of modules.dep", maxDepmod}
		}
	}
	return line.String(), nil
}

// allDepends returns what m needs, directly or not, each behind what needs
// it: modprobe loads from the end.
func allDepends(byName map[string]*indexed, m *indexed) []*indexed {
	var order []*indexed
	seen := map[string]bool{m.Name: true}
	var visit func(*indexed)
	visit = func(m *indexed) {
		for _, name := range m.Depends {
			if d := byName[name]; d != nil && !seen[name] {
				seen[name] = true
				visit(d)
				order = append(order, d)
			}
		}
	}
	visit(m)
	slices.Reverse(order)
	return order
}

// aliasKey writes '-' as '_' but in brackets, as modprobe does before it looks
// an alias up.
func aliasKey(alias string) string {
	out := []byte(alias)
	depth := 0
	for i, c := range out {
		switch {
		case c == '[':
			depth++
		case c == ']':
			depth--
		case c == '-' && depth == 0:
			out[i] = '_'
		}
	}
	return string(out)
}

// indexNode is a node of the tries of kmod's binary indexes; the format is
// described in its libkmod/libkmod-index.c.
type indexNode struct {
	prefix   string
	children [128]*indexNode
	values   []indexValue
}

type indexValue struct {
	text     string
	priority uint32 // lower ones come first
}

// add puts a value at key. A key that is not ASCII cannot be in an index; no
// module's name or alias is such. It returns how many nodes were made.
func (n *indexNode) add(key, text string, priority uint32) (made int) {
	if strings.ContainsFunc(key, func(r rune) bool { return r == 0 || r >= 128 }) {
		return 0
	}
	for first := true; ; first = false {
		if first && n.prefix == "" && n.values == nil && n.empty() {
			n.prefix = key
		}
		common := 0
		for common < len(key) && common < len(n.prefix) && key[common] == n.prefix[common] {
			common++
		}
		if common < len(n.prefix) {
			n.split(common)
			made++
		}
		if key = key[common:]; key == "" {
			n.values = append(n.values, indexValue{text, priority})
			return made
		}
		child := n.children[key[0]]
		if child == nil {
			n.children[key[0]] = &indexNode{prefix: key[1:], values: []indexValue{{text, priority}}}
			return made + 1
		}
		n, key = child, key[1:]
	}
}

func (n *indexNode) empty() bool {
	return !slices.ContainsFunc(n.children[:], func(c *indexNode) bool { return c != nil })
}

// split moves all of n but the first bytes of its prefix into a child.
func (n *indexNode) split(at int) {
	rest := &indexNode{prefix: n.prefix[at+1:], children: n.children, values: n.values}
	first := n.prefix[at]
	*n = indexNode{prefix: n.prefix[:at]}
	n.children[first] = rest
}

// Numbers of the format: INDEX_MAGIC, INDEX_VERSION and INDEX_NODE_*.
const (
	indexMagic   = 0xb007f457
	indexVersion = 0x00020001
	nodePrefix   = 0x80000000
	nodeValues   = 0x40000000
	nodeChildren = 0x20000000
)

func (n *indexNode) encode() []byte {
	be := binary.BigEndian
	out := be.AppendUint32(nil, indexMagic)
	out = be.AppendUint32(out, indexVersion)
	out = be.AppendUint32(out, 0)
	out, root := n.append(out)
	be.PutUint32(out[8:], root)
	return out
}

// append writes the nodes below n, then n, and returns n's offset and flags.
func (n *indexNode) append(out []byte) (all []byte, at uint32) {
	be := binary.BigEndian
	first, last := -1, -1
	var offsets [128]uint32
	for c, child := range n.children {
		if child == nil {
			continue
		}
		if first < 0 {
			first = c
		}
		last = c
		out, offsets[c] = child.append(out)
	}
	at = uint32(len(out))
	if n.prefix != "" {
		at |= nodePrefix
		out = append(append(out, n.prefix...), 0)
	}
	if first >= 0 {
		at |= nodeChildren
		out = append(out, byte(first), byte(last))
		for _, offset := range offsets[first : last+1] {
			out = be.AppendUint32(out, offset)
		}
	}
	if len(n.values) > 0 {
		at |= nodeValues
		slices.SortStableFunc(n.values, func(a, b indexValue) int { return int(a.priority) - int(b.priority) })
		out = be.AppendUint32(out, uint32(len(n.values)))
		for _, v := range n.values {
			out = be.AppendUint32(out, v.priority)
			out = append(append(out, v.text...), 0)
		}
	}
	return out, at
}
