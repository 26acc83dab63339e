package e2fs

import (
	"context"
	"fmt"
	"math"
	"strconv"

	"github.com/banger-vm/banger/internal/image/tree"
)

// mke2fsConfig replaces the host's /etc/mke2fs.conf, so that the disk does not
// depend on the host. The features are those of the stock file of e2fsprogs
// 1.47.0. The types by size are defined because mkfs.ext4 complains if one is
// missing or empty.
const mke2fsConfig = `[defaults]
	base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
	default_mntopts = acl,user_xattr
	enable_periodic_fsck = 0
	blocksize = 4096
	inode_size = 256
	inode_ratio = 16384
	reserved_ratio = 5.0
[fs_types]
	ext4 = {
		features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
	}
	floppy = {
		inode_ratio = 16384
	}
	small = {
		inode_ratio = 16384
	}
	big = {
		inode_ratio = 16384
	}
	huge = {
		inode_ratio = 16384
	}
`

// makeFS runs mkfs.ext4 to make the file system and to copy the staged tree
// into it.
func (b *builder) makeFS(ctx context.Context) error {
	if err := b.work.write(configName, []byte(mke2fsConfig)); err != nil {
		return fmt.Errorf("write %s: %w", configName, err)
	}
	env := []string{"MKE2FS_CONFIG=" + configName, fakeTime(b.o.Created)}
	cmd := b.work.command(ctx, env, b.tools.mkfs, b.mkfsArgs()...)
	var output headBuffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run mkfs.ext4: %w: %w", err, toolError(string(output.kept)))
	}
	// With -q it prints only warnings and errors.
	if len(output.kept) > 0 {
		return fmt.Errorf("run mkfs.ext4: %w", toolError(string(output.kept)))
	}
	return nil
}

func (b *builder) mkfsArgs() []string {
	extended := "root_owner=0:0,no_copy_xattrs,nodiscard,assume_storage_prezeroed=1"
	if b.geo.resize > 0 {
		extended += ",resize=" + strconv.FormatInt(b.geo.resize, 10)
	}
	if b.o.HashSeed != [16]byte{} {
		extended += ",hash_seed=" + uuid(b.o.HashSeed)
	}
	return []string{
		"-F", "-q", "-d", stageName, "-E", extended,
		"-b", strconv.Itoa(blockSize), "-I", strconv.Itoa(inodeSize),
		"-N", strconv.FormatInt(b.geo.inodes, 10),
		"-J", "size=" + strconv.FormatInt(b.geo.journal*blockSize>>20, 10),
		"-U", uuid(b.o.UUID), "-L", b.o.Label,
		diskName, strconv.FormatInt(b.geo.blocks, 10),
	}
}

// fakeTime returns the environment variable that libext2fs reads the time
// from. Its value is 1 to 2^32-1, because 0 selects the clock.
func fakeTime(t tree.Time) string {
	return "E2FSPROGS_FAKE_TIME=" + strconv.FormatInt(max(1, min(t.Sec, math.MaxUint32)), 10)
}

func uuid(b [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
