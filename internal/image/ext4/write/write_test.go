package write_test

import (
	"os"
	"testing"

	"github.com/banger-vm/banger/internal/image/ext4/ext4test"
	"github.com/banger-vm/banger/internal/image/ext4/write"
)

func TestWriteEmptyTree(t *testing.T) {
	disk := ext4test.NewImage(t).Write(ext4test.Options())
	info, err := os.Stat(disk)
	if err != nil || info.Size() != write.MinSize {
		t.Errorf("size %v, want %d (%v)", info.Size(), write.MinSize, err)
	}
}
