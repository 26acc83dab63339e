package layer

import (
	"sync/atomic"

	"github.com/banger-vm/banger/internal/image/tree"
)

// A Budget is a number of bytes that layers share while they unpack in
// parallel. It stops decompression bombs.
type Budget struct {
	limit int64
	used  atomic.Int64
}

// NewBudget returns a budget of limit bytes, or of DefaultBytes if limit is
// not positive.
func NewBudget(limit int64) *Budget {
	if limit <= 0 {
		limit = DefaultBytes
	}
	return &Budget{limit: limit}
}

// Take subtracts n bytes from the budget. It returns a *tree.LimitError if
// the budget does not cover them.
func (b *Budget) Take(n int64) error {
	if b.used.Add(n) > b.limit {
		return &tree.LimitError{What: "bytes in the unpacked layers", Limit: b.limit, Option: "--max-size"}
	}
	return nil
}

// giveBack adds n bytes to the budget that an attempt took and another may need.
func (b *Budget) giveBack(n int64) { b.used.Add(-n) }
