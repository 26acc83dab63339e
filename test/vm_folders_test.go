//go:build e2e

package e2e

import (
	"strconv"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// debianWith writes an OCI layout of the Debian image with a changed configuration, and returns it as a source.
func debianWith(t *testing.T, box sandbox, folder string, change func(*v1.Config)) string {
	t.Helper()
	ref, err := name.ParseReference(reference("debian:12"), name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref, remote.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	conf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	change(&conf.Config)
	if img, err = mutate.ConfigFile(img, conf); err != nil {
		t.Fatal(err)
	}
	dir := box.path("out", folder)
	path, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = path.AppendImage(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	tool(t, "chown", "-R", strconv.Itoa(int(box.uid)), dir)
	return "oci:" + dir
}

// TestVolumes runs an image whose volumes and working directory are in no layer. The machine has them as root's, with
// mode 0755, as docker's containers have, and on a read-only root file system too.
func TestVolumes(t *testing.T) {
	box := sharedUnprivilegedSandbox(t)
	source := debianWith(t, box, "volumes", func(c *v1.Config) {
		c.Volumes = map[string]struct{}{"/data/db": {}, "/tmp": {}}
		c.WorkingDir = "/made/up"
	})
	box.must(t, "image", "import", "--name", "volumes:1", source)
	const script = `stat -c '%n %U:%G %a' /data/db /made/up /tmp; pwd; touch /data/db/file && echo wrote`
	const folders = "/data/db root:root 755\n/made/up root:root 755\n/tmp root:root 1777\n/made/up\n"
	got := box.run(t, "run", "--rm", "volumes:1", "sh", "-c", script)
	expectCode(t, got, 0)
	if want := folders + "wrote\n"; got.stdout != want {
		t.Errorf("stdout = %q, want %q", got.stdout, want)
	}
	got = box.run(t, "run", "--rm", "--read-only", "volumes:1", "sh", "-c", script)
	expectCode(t, got, 1)
	if got.stdout != folders {
		t.Errorf("read-only: stdout = %q, want %q", got.stdout, folders)
	}
}
