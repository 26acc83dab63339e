package kernel

import "testing"

// TestIndexSizeLimit checks that encode refuses an index that resolver would
// not read.
func TestIndexSizeLimit(t *testing.T) {
	x := Index{Builtin: []string{"ext4"}}
	data, err := x.encode(maxIndex)
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(data))
	if _, err := x.encode(size); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := x.encode(size - 1); err == nil {
		t.Error("over the limit: no error")
	}
}
