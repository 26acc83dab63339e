package layer

import (
	"sync/atomic"

	"github.com/banger-vm/banger/internal/image/tree"
)

// A Budget is a number of bytes that layers share while they unpack in
// parallel. It is what stops a decompression bomb.
type Budget struct {
	limit int64
	used  atomic.Int64
}

// NewBudget returns a budget of limit bytes; 0 stands for DefaultBytes.
func NewBudget(limit int64) *Budget {
	if limit <= 0 {
		limit = DefaultBytes
	}
	return &Budget{limit: limit}
}

// Take uses n bytes up. The error is a *tree.LimitError.
func (b *Budget) Take(n int64) error {
	if b.used.Add(n) > b.limit {
		return &tree.LimitError{What: "bytes in the unpacked layers", Limit: b.limit, Option: "--max-size"}
	}
	return nil
}
