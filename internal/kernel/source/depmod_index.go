package source

import (
	"encoding/binary"
	"slices"
	"strings"
)

// An indexNode is a node of a trie in kmod's binary index format, which the
// comments of libkmod/libkmod-index.c in kmod describe. The zero value is an
// empty root.
type indexNode struct {
	prefix   string
	children [128]*indexNode // by the first byte of their keys
	values   []indexValue
}

type indexValue struct {
	text     string
	priority uint32 // ascending
}

// add adds a value for key and returns the number of nodes that it made. It
// ignores a key that is not ASCII, because the format cannot express it; no
// name or alias of a module in Linux is such a key.
func (n *indexNode) add(key, text string, priority uint32) (made int) {
	if strings.ContainsFunc(key, func(r rune) bool { return r == 0 || r >= 128 }) {
		return 0
	}
	for first := true; ; first = false {
		if first && n.prefix == "" && n.values == nil && n.isLeaf() {
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

func (n *indexNode) isLeaf() bool {
	return !slices.ContainsFunc(n.children[:], func(c *indexNode) bool { return c != nil })
}

// split shortens the prefix of n to its first bytes and moves the rest of n
// into a child.
func (n *indexNode) split(at int) {
	rest := &indexNode{prefix: n.prefix[at+1:], children: n.children, values: n.values}
	first := n.prefix[at]
	*n = indexNode{prefix: n.prefix[:at]}
	n.children[first] = rest
}

// Constants of the format: INDEX_MAGIC, INDEX_VERSION and INDEX_NODE_*.
const (
	indexMagic   = 0xb007f457
	indexVersion = 0x00020001
	nodePrefix   = 0x80000000
	nodeValues   = 0x40000000
	nodeChildren = 0x20000000
)

// encode returns the index file with root n.
func (n *indexNode) encode() []byte {
	be := binary.BigEndian
	out := be.AppendUint32(nil, indexMagic)
	out = be.AppendUint32(out, indexVersion)
	out = be.AppendUint32(out, 0)
	out, root := n.append(out)
	be.PutUint32(out[8:], root)
	return out
}

// append appends the descendants of n, then n itself. It returns the offset of
// n with its flags.
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
