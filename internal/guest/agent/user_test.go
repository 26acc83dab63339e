package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const passwd = `root:x:0:0:root:/root:/bin/bash
# a comment
daemon:x:1:1::/usr/sbin:/usr/sbin/nologin
bob:x:1000:100:Bob:/home/bob:
1000:x:2000:2000:a name that is a number:/home/number:/bin/sh
short:x:5
bad:x:minus:5:::
toobig:x:4294967295:0:::
+::::::
empty:x:7:7:::
`

const groupFile = `root:x:0:
users:x:100:alice
wheel:x:10:root,bob
docker:x:999: bob ,alice
docker2:x:999:bob
55:x:56:
bad:x:y:bob
`

func files(t testing.TB, passwd, group string) databases {
	t.Helper()
	dir := t.TempDir()
	d := databases{filepath.Join(dir, "passwd"), filepath.Join(dir, "group")}
	for path, content := range map[string]string{d.passwd: passwd, d.group: group} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func TestAccounts(t *testing.T) {
	full := files(t, passwd, groupFile)
	none := databases{"/no/such/passwd", "/no/such/group"}
	for _, row := range []struct {
		name   string
		d      databases
		spec   string
		want   account
		refuse bool
	}{
		{"default user", full, "", account{"root", 0, 0, []uint32{10}, "/root", "/bin/bash"}, false},
		{"name", full, "bob", account{"bob", 1000, 100, []uint32{10, 999}, "/home/bob", "/bin/sh"}, false},
		{"number with an entry", full, "1", account{"daemon", 1, 1, nil, "/usr/sbin", "/usr/sbin/nologin"}, false},
		{"number before a name with the same digits", full, "1000", account{"bob", 1000, 100, []uint32{10, 999}, "/home/bob", "/bin/sh"}, false},
		{"number without an entry", full, "1234", account{"", 1234, 0, nil, "/", "/bin/sh"}, false},
		{"group", full, "bob:users", account{"bob", 1000, 100, nil, "/home/bob", "/bin/sh"}, false},
		{"group by number", full, "bob:10", account{"bob", 1000, 10, nil, "/home/bob", "/bin/sh"}, false},
		{"group without an entry", full, "bob:77", account{"bob", 1000, 77, nil, "/home/bob", "/bin/sh"}, false},
		{"group whose name is a number", full, "bob:55", account{"bob", 1000, 56, nil, "/home/bob", "/bin/sh"}, false},
		{"only a group", full, ":wheel", account{"root", 0, 10, nil, "/root", "/bin/bash"}, false},
		{"empty home", full, "empty", account{"empty", 7, 7, nil, "/", "/bin/sh"}, false},
		{"unknown user", full, "carol", account{}, true},
		{"unknown group", full, "bob:carol", account{}, true},
		{"too few fields", full, "short", account{}, true},
		{"bad number", full, "bad", account{}, true},
		{"the greatest number", full, "toobig", account{}, true},
		{"the greatest number as such", full, "4294967295", account{}, true},
		{"negative", full, "-1", account{}, true},
		{"too great", full, "4294967296", account{}, true},
		{"no files: default user", none, "", account{"", 0, 0, nil, "/", "/bin/sh"}, false},
		{"no files: root", none, "root", account{"root", 0, 0, nil, "/root", "/bin/sh"}, false},
		{"no files: numbers", none, "5:6", account{"", 5, 6, nil, "/", "/bin/sh"}, false},
		{"no files: name", none, "bob", account{}, true},
		{"no files: group", none, "5:bob", account{}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := row.d.find(row.spec)
			if row.refuse {
				if err == nil {
					t.Errorf("got %+v, want an error", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.name != row.want.name || got.uid != row.want.uid || got.gid != row.want.gid || got.home != row.want.home ||
				got.shell != row.want.shell || !slices.Equal(got.groups, row.want.groups) {
				t.Errorf("got %+v, want %+v", *got, row.want)
			}
		})
	}
}

// The image's files may be of any type and size.
func TestHostileDatabases(t *testing.T) {
	dir := t.TempDir()
	fifo, big := filepath.Join(dir, "fifo"), filepath.Join(dir, "big")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(big, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, maxDatabase+1); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, fifo, big, "/dev/zero"} {
		if _, err := (databases{path, "/no/such"}).find("root"); err == nil {
			t.Errorf("%s was read as the users' file", path)
		}
		if _, err := (databases{"/no/such", path}).find("root"); err == nil {
			t.Errorf("%s was read as the groups' file", path)
		}
	}
	many := files(t, "u:x:1:1:::\n", strings.Repeat("g:x:5:u\n", 100000))
	if acc, err := many.find("u"); err != nil || len(acc.groups) != 1 {
		t.Errorf("%+v, %v", acc, err)
	}
}

func FuzzAccounts(f *testing.F) {
	f.Add(passwd, groupFile, "bob")
	f.Add(passwd, groupFile, "1000:docker")
	f.Add("a:b:1:2:c:d", "", "a:3")
	f.Add("::::::\n:x:0:0::\x00:", "::1:,,\n", ":")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, passwd, group, spec string) {
		d := databases{filepath.Join(dir, "passwd"), filepath.Join(dir, "group")}
		for path, content := range map[string]string{d.passwd: passwd, d.group: group} {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		acc, err := d.find(spec)
		if err != nil {
			return
		}
		if acc.uid == 1<<32-1 || acc.gid == 1<<32-1 || acc.home == "" || acc.shell == "" || slices.Contains(acc.groups, 1<<32-1) {
			t.Errorf("%q gives %+v", spec, acc)
		}
		if len(acc.groups) > 0 && strings.HasSuffix(spec, ":x") {
			t.Errorf("%q has supplementary groups %v beside its own", spec, acc.groups)
		}
	})
}
