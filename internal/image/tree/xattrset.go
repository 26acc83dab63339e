package tree

import "encoding/binary"

// xattrSets numbers the sets of xattrs of a tree. Equal sets have the same
// number, their index in t.xattrs.
type xattrSets struct {
	t       *Tree
	numbers map[string]uint32 // by the encoded set
	bytes   int               // of all encoded sets
}

// number returns the number of a set. The error is a *LimitError.
func (x *xattrSets) number(set []Xattr) (uint32, error) {
	if len(set) == 0 {
		return 0, nil
	}
	var key []byte
	for _, a := range set {
		key = binary.AppendUvarint(key, uint64(len(a.Name)))
		key = append(key, a.Name...)
		key = binary.AppendUvarint(key, uint64(len(a.Value)))
		key = append(key, a.Value...)
	}
	if n, ok := x.numbers[string(key)]; ok {
		return n, nil
	}
	if x.bytes += len(key); x.bytes > maxXattrTotal {
		return 0, &LimitError{What: "bytes of extended attributes", Limit: maxXattrTotal}
	}
	n := uint32(len(x.t.xattrs))
	x.t.xattrs = append(x.t.xattrs, append([]Xattr(nil), set...))
	x.numbers[string(key)] = n
	return n, nil
}
