package qemu

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestChooseID(t *testing.T) {
	const host = "         0          0 4294967295\n"
	for _, row := range []struct {
		name, random, uids, gids string
		want                     uint32
	}{
		{"lowest ID of the host", "\x00\x00\x00\x00", host, host, 0x70000000},
		{"highest ID of the host", "\xff\xff\xff\xff", host, host, 0x7fffffff},
		{"root alone", "abcd", "         0       1000          1\n", "0 1000 1\n", 0},
		{"users alone", "abcd", host, "0 1000 1\n", 0},
		{"groups alone", "abcd", "0 1000 1\n", host, 0},
		{"rootless container", "abcd", "0 1000 1\n1 100000 65536\n", host, 65534},
		{"up to nobody", "abcd", "0 0 65534\n", host, 0},
		{"with nobody", "abcd", "0 0 65535\n", host, 65534},
		{"nobody besides root", "abcd", "0 1000 1\n65534 65534 1\n", host, 65534},
		{"empty", "abcd", "", host, 0},
		{"damaged", "abcd", "0 0\n", host, 0},
	} {
		if got, err := chooseID(strings.NewReader(row.random), row.uids, row.gids); got != row.want || err != nil {
			t.Errorf("%s: %d, %v, want %d", row.name, got, err, row.want)
		}
	}
	if id, err := chooseID(strings.NewReader("abc"), host, host); err == nil {
		t.Errorf("without random bytes: %d", id)
	}
}

// Two machines that root starts have different users, without root's groups.
func TestCredential(t *testing.T) {
	if os.Geteuid() != 0 {
		if cred, err := credential(""); cred != nil || err != nil {
			t.Errorf("a plain user gets credential %v, %v", cred, err)
		}
		return
	}
	one, err := credential("")
	if err != nil {
		t.Fatal(err)
	}
	if one == nil {
		t.Skip("this root has no other ID")
	}
	two, err := credential("")
	if err != nil {
		t.Fatal(err)
	}
	if one.Uid == 0 || one.Gid == 0 || len(one.Groups) != 0 || one.NoSetGroups {
		t.Errorf("credential %+v", one)
	}
	if one.Uid >= minMachineID && one.Uid == two.Uid {
		t.Errorf("two machines are the same user, %d", one.Uid)
	}
	device := filepath.Join(t.TempDir(), "kvm")
	for _, row := range []struct {
		mode os.FileMode
		gid  int
		want []uint32
	}{{0o660, 4321, []uint32{4321}}, {0o640, 4321, nil}, {0o660, 0, nil}} {
		if err := os.WriteFile(device, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Chmod(device, row.mode), os.Chown(device, 0, row.gid)); err != nil {
			t.Fatal(err)
		}
		cred, err := credential(device)
		if err != nil || !slices.Equal(cred.Groups, row.want) {
			t.Errorf("device of group %d, mode %v: %+v, %v", row.gid, row.mode, cred, err)
		}
	}
}
