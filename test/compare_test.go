//go:build e2e

package e2e

import (
	"archive/tar"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/test/treediff"
)

// exceptions are the differences from umoci's tree that the comparison allows.
var exceptions = []exception{
	{path: ".", field: "seconds", reason: "umoci leaves the root as old as its folder; see TestF9TimesUmociLacks"},
	{path: ".", field: "nanoseconds", reason: "the same"},
	{image: "torture:1", path: "implied", field: "seconds", reason: "no entry: F9 wants the image's creation time, umoci uses the clock"},
	{image: "torture:1", path: "implied", field: "nanoseconds", reason: "F9"},
	{image: "torture:1", path: "implied/by", field: "seconds", reason: "F9"},
	{image: "torture:1", path: "implied/by", field: "nanoseconds", reason: "F9"},
	{image: "torture:1", path: "implied/by/a", field: "seconds", reason: "F9"},
	{image: "torture:1", path: "implied/by/a", field: "nanoseconds", reason: "F9"},
	{image: "torture:1", path: "opaque/sub", field: "seconds", reason: "F9: hidden with its entry, and implied by a file of the upper layer"},
	{image: "torture:1", path: "opaque/sub", field: "nanoseconds", reason: "F9"},
	{image: "torture:1", path: "xattrs/*", field: "xattr:user.empty", reason: "umoci's tar reader takes an empty PAX value for a deleted record"},
	{image: "torture:1", path: "xattrs/*", field: "xattr:user.name-00", reason: "the same"},
	{image: "torture:1", path: "times/*-2400", field: "seconds", reason: "umoci counts nanoseconds in 64 bits, which end in 2262"},
	{image: "torture:1", path: "times/*-2400", field: "nanoseconds", reason: "2262"},
	{image: "torture:1", path: "times/*-2446", field: "seconds", reason: "2262"},
	{image: "torture:1", path: "times/*-2446", field: "nanoseconds", reason: "2262"},
}

// TestF8DiskEqualsUmoci compares every inode of a disk, as the kernel shows it, with umoci's tree of the same
// image.
func TestF8DiskEqualsUmoci(t *testing.T) {
	for _, image := range []string{"debian:12", "app:1", "torture:1", "torture:names"} {
		for _, builder := range builders {
			if image == "torture:names" && builder == "e2fsprogs" {
				continue // B5: refused, see TestB5NamesRefused
			}
			t.Run(image+"/"+builder, func(t *testing.T) {
				want := umociTree(t, image)
				disk := newSandbox(t).convert(t, builder, reference(image))
				expectSound(t, disk)
				expectSameTree(t, builder, image, want, diskTree(t, disk))
			})
		}
	}
}

// TestF8ComparisonIsNotEmpty checks that the trees of the comparison have the inodes that are hard to get right.
func TestF8ComparisonIsNotEmpty(t *testing.T) {
	app := umociTree(t, "app:1")
	if len(app) < 10_000 {
		t.Errorf("demo/app:1 has %d paths", len(app))
	}
	for path, want := range map[string]treediff.Node{
		"usr/bin/sudo":                   {"mode": "4755", "owner": "0:0"},
		"srv":                            {"mode": "0700", "owner": "1000:1000"},
		"srv/odd/wide-owner":             {"owner": "3000000000:2999999999"},
		"srv/odd/mode-0000":              {"mode": "0000", "type": "file"},
		"srv/odd/wide":                   {"type": "block device", "device": "4095:1048575"},
		"srv/odd/linked-2":               {"links": "2"},
		"srv/odd/tagged":                 {"xattr:user.banger": `"demo"`},
		"usr/share/doc/README":           {"type": "file"},
		"usr/local/bin/python-low-ports": {"type": "file"},
	} {
		expectFields(t, app, path, want)
	}
	if app["usr/local/bin/python-low-ports"]["xattr:security.capability"] == "" {
		t.Error("the file capability is lost before banger sees it")
	}
	for _, gone := range []string{"usr/share/doc/bash", "usr/share/man/man1", "srv/odd/linked", "usr/share/lintian/overrides"} {
		if _, there := app[gone]; there {
			t.Errorf("%s is there: no whiteout hid it", gone)
		}
	}
	torture := umociTree(t, "torture:1")
	expectFields(t, torture, "times/file-2106", treediff.Node{"seconds": "4294967296", "nanoseconds": "2"})
	expectFields(t, torture, "links/third-layer", treediff.Node{"links": "2", "group": "links/moved-across"})
	if torture["xattrs/acl"]["xattr:system.posix_acl_access"] == "" {
		t.Error("the corpus has no ACL")
	}
}

func expectFields(t *testing.T, tree treediff.Tree, path string, want treediff.Node) {
	t.Helper()
	for field, value := range want {
		if got := tree[path][field]; got != value {
			t.Errorf("%s: %s is %q, want %q", path, field, got, value)
		}
	}
}

// TestF9TimesUmociLacks checks the times that the comparison with umoci excludes.
func TestF9TimesUmociLacks(t *testing.T) {
	created := treediff.Node{"seconds": "1612325106", "nanoseconds": "0", "mode": "0755", "owner": "0:0"}
	late := treediff.Node{"seconds": "13574649599", "nanoseconds": "123456789"}
	latest := treediff.Node{"seconds": "15032385535", "nanoseconds": "0"}
	for _, builder := range builders {
		t.Run(builder, func(t *testing.T) {
			tree := diskTree(t, newSandbox(t).convert(t, builder, reference("torture:1")))
			for path, want := range map[string]treediff.Node{
				".": {"seconds": "1565157904", "nanoseconds": "123456789"}, "implied": created, "implied/by": created, "implied/by/a": created,
				"times/file-2400": late, "times/link-2400": late, "times/dir-2400": late,
				"times/file-2446": latest, "times/link-2446": latest, "times/dir-2446": latest,
			} {
				expectFields(t, tree, path, want)
			}
		})
	}
}

// TestB2PlainUserSameDisk checks that a user without privileges gets the same disk as root.
func TestB2PlainUserSameDisk(t *testing.T) {
	for _, image := range []string{"torture:1", "app:1"} {
		for _, builder := range builders {
			t.Run(image+"/"+builder, func(t *testing.T) {
				want := newSandbox(t).convert(t, builder, reference(image))
				got := newUnprivilegedSandbox(t).convert(t, builder, reference(image))
				expectSound(t, got)
				if builder == "native" {
					if digestOf(t, want) != digestOf(t, got) {
						t.Error("B3: the bytes of root's disk and of a plain user's differ")
					}
				}
				for _, d := range treediff.Diff(diskTree(t, want), diskTree(t, got)) {
					t.Error(d)
				}
			})
		}
	}
}

// TestB4BuildersAgree compares the disks of the two builders.
func TestB4BuildersAgree(t *testing.T) {
	needNative(t)
	for _, image := range []string{"torture:1", "app:1"} {
		t.Run(image, func(t *testing.T) {
			box := newSandbox(t)
			reference, native := box.convert(t, "e2fsprogs", reference(image)), box.convert(t, "native", reference(image))
			expectSameTree(t, "e2fsprogs", image, diskTree(t, native), diskTree(t, reference))
		})
	}
}

// TestB5NamesRefused checks that the e2fsprogs builder refuses names that its debugfs script cannot have.
func TestB5NamesRefused(t *testing.T) {
	box := newSandbox(t)
	got := box.run(t, "convert", "--plain-http", "--builder=e2fsprogs", reference("torture:names"), box.path("out/disk"))
	expectComplaint(t, got, "names/")
	if entries, err := os.ReadDir(box.path("out")); err != nil || len(entries) > 0 {
		t.Errorf("left over: %v, %v", entries, err)
	}
}

// TestP1SourcesGiveTheSameTree converts one image from every kind of source.
func TestP1SourcesGiveTheSameTree(t *testing.T) {
	const image = "torture:1"
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	copyImage(t, image, "oci:"+at("oci")+":1")
	copyImage(t, image, "oci-archive:"+at("oci.tar")+":1")
	copyImage(t, image, "docker-archive:"+at("docker.tar")+":demo/torture:1")
	packTree(t, image, at("root.tar"))
	want := umociTree(t, image)
	for _, source := range []string{
		reference(image), "docker://" + reference(image), reference("torture:zstd"), reference("torture:multi"),
		"oci:" + at("oci"), "oci:" + at("oci") + ":1", "oci-archive:" + at("oci.tar"), "oci-archive:" + at("oci.tar") + ":1",
		"docker-archive:" + at("docker.tar"), "tar:" + at("root.tar"),
	} {
		t.Run(strings.ReplaceAll(strings.ReplaceAll(source, dir, ""), suite.registry, "registry"), func(t *testing.T) {
			builder := builders[len(builders)-1]
			disk := newSandbox(t).convert(t, builder, source)
			expectSound(t, disk)
			if strings.HasPrefix(source, "tar:") {
				want = throughGNUTar(want)
			}
			expectSameTree(t, builder, image, want, diskTree(t, disk))
		})
	}
}

// throughGNUTar returns the tree as GNU tar packs it: a fifo with two names becomes two fifos.
func throughGNUTar(tree treediff.Tree) treediff.Tree {
	out := maps.Clone(tree)
	for _, name := range []string{"links/fifo", "links/fifo-too"} {
		out[name] = maps.Clone(out[name])
		out[name]["links"], out[name]["group"] = "1", name
	}
	return out
}

// packTree writes umoci's tree of the image as a plain tar, in the dialect of GNU tar.
func packTree(t *testing.T, image, to string) {
	t.Helper()
	dir := t.TempDir()
	copyImage(t, image, "oci:"+filepath.Join(dir, "layout")+":image")
	tool(t, "umoci", "unpack", "--image", filepath.Join(dir, "layout")+":image", filepath.Join(dir, "bundle"))
	tool(t, "tar", "--create", "--file", to, "--format=posix", "--sparse", "--numeric-owner",
		// --acls would write this host's names for the ids. The raw attributes hold the ACLs instead.
		"--xattrs", "--xattrs-include=*", "--directory", filepath.Join(dir, "bundle/rootfs"), ".")
	f, err := os.Open(to)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := tar.NewReader(f).Next(); err != nil {
		t.Fatalf("read the tar back: %v", err)
	}
}

// TestP1StandardInput converts a tar from a pipe.
func TestP1StandardInput(t *testing.T) {
	const image = "torture:1"
	name := filepath.Join(t.TempDir(), "root.tar")
	packTree(t, image, name)
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	box := newSandbox(t)
	disk := box.path("out/disk")
	cmd := box.command(t.Context(), "convert", "tar:-", disk)
	cmd.Stdin = io.MultiReader(f) // hides the file: the command gets a pipe
	if got := finish(t, cmd, nil); got.code != 0 {
		t.Fatalf("exit code %d\n%s", got.code, got.stderr)
	}
	expectSound(t, disk)
	expectSameTree(t, "native", image, throughGNUTar(umociTree(t, image)), diskTree(t, disk))
}

// TestP1MissingPlatformListsPlatforms checks that the error names the platforms of the index.
func TestP1MissingPlatformListsPlatforms(t *testing.T) {
	box := newSandbox(t)
	got := box.run(t, "convert", "--plain-http", "--platform=linux/riscv64", reference("torture:multi"), box.path("out/disk"))
	expectComplaint(t, got, "linux/riscv64", "linux/s390x")
}

// TestP2CacheIsAnOCILayout reads the cache with skopeo.
func TestP2CacheIsAnOCILayout(t *testing.T) {
	box := newSandbox(t)
	box.must(t, "image", "pull", "--plain-http", reference("torture:1"))
	need(t, "skopeo")
	layout := box.path("cache/banger/oci")
	if out := tool(t, "skopeo", "inspect", "oci:"+layout); !strings.Contains(out, `"Digest"`) {
		t.Errorf("skopeo inspect prints %s", out)
	}
	box.expectSoundCache(t)
}
