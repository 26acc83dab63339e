package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"banger": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			os.Exit(Main(ctx, "v0.0.0-test", os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
		},
	})
}

// TestScripts runs the scripts with the real main, against a registry of this
// process at $REGISTRY.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	testscript.Run(t, testscript.Params{
		Files: files,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("REGISTRY", strings.TrimPrefix(server.URL, "http://"))
			env.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
			for _, v := range []string{"DATA", "CACHE", "CONFIG", "RUNTIME"} {
				dir := map[string]string{"RUNTIME": "XDG_RUNTIME_DIR"}[v]
				if dir == "" {
					dir = "XDG_" + v + "_HOME"
				}
				env.Setenv(dir, filepath.Join(env.WorkDir, "."+strings.ToLower(v)))
			}
			// The folder of banger alone, for commands that must find no other program.
			env.Setenv("ALONE", strings.Split(os.Getenv("PATH"), ":")[0])
			if err := os.Mkdir(filepath.Join(env.WorkDir, ".runtime"), 0o700); err != nil {
				return err
			}
			env.Defer(func() { endDaemons(t, filepath.Join(env.WorkDir, ".runtime")) })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"mktar": mktar, "mkkernel": mkkernel, "push": push, "oci": writeLayout, "status": status, "isjson": isJSON,
		},
	})
}

// endDaemons stops the daemons that commands of a script have started, and
// waits until their processes have ended.
func endDaemons(t *testing.T, runtime string) {
	t.Helper()
	sockets, err := filepath.Glob(filepath.Join(runtime, "banger", "*", "daemon.sock"))
	if err != nil {
		t.Fatal(err)
	}
	for _, socket := range sockets {
		daemon := &api.Client{Socket: socket}
		info, err := daemon.Info(context.Background()) // the test's own context has ended
		if err != nil {
			t.Errorf("daemon of %s: %v", socket, err)
			continue
		}
		process, err := unix.PidfdOpen(info.PID, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(process)
		if err := daemon.Shutdown(context.Background()); err != nil {
			t.Errorf("end daemon of %s: %v", socket, err)
		}
		const patience = 10_000 // milliseconds
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}, patience); n != 1 {
			t.Errorf("daemon of %s, process %d: still there (%v)", socket, info.PID, err)
		}
	}
}

// mktar OUT SPEC writes a tar file with an entry for each line of SPEC. See
// tarHeader for the form of a line.
func mktar(ts *testscript.TestScript, _ bool, args []string) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for line := range strings.Lines(ts.ReadFile(args[1])) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		h, body := tarHeader(ts, fields)
		ts.Check(w.WriteHeader(h))
		_, err := io.WriteString(w, body)
		ts.Check(err)
	}
	ts.Check(w.Close())
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), out.Bytes(), 0o600))
}

// tarHeader parses "file MODE NAME [CONTENT]", "dir MODE NAME", "symlink MODE
// NAME TARGET", "link MODE NAME TARGET" or "fifo MODE NAME".
func tarHeader(ts *testscript.TestScript, fields []string) (h *tar.Header, body string) {
	mode, err := strconv.ParseInt(fields[1], 8, 64)
	ts.Check(err)
	h = &tar.Header{Name: fields[2], Mode: mode, Format: tar.FormatPAX}
	last := ""
	if len(fields) > 3 {
		last = fields[3]
	}
	switch fields[0] {
	case "file":
		h.Typeflag, h.Size, body = tar.TypeReg, int64(len(last)), last
	case "dir":
		h.Typeflag = tar.TypeDir
	case "symlink":
		h.Typeflag, h.Linkname = tar.TypeSymlink, last
	case "link":
		h.Typeflag, h.Linkname = tar.TypeLink, last
	case "fifo":
		h.Typeflag = tar.TypeFifo
	default:
		ts.Fatalf("unknown type %q", fields[0])
	}
	return h, body
}

func imageOf(ts *testscript.TestScript, tars []string) v1.Image {
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	for _, file := range tars {
		l, err := tarball.LayerFromFile(ts.MkAbs(file), tarball.WithMediaType(types.OCILayer))
		ts.Check(err)
		img, err = mutate.AppendLayers(img, l)
		ts.Check(err)
	}
	config, err := img.ConfigFile()
	ts.Check(err)
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	config.Config.Entrypoint = []string{"/bin/app"}
	config.Config.Env = []string{"A=b"}
	img, err = mutate.ConfigFile(img, config)
	ts.Check(err)
	return img
}

// push NAME TAR… makes an image of the layers and pushes it to $REGISTRY. If
// NAME begins with wrong-diffid, the configuration has a wrong diffID for the
// first layer. If it begins with arm64, the image is for linux/arm64.
func push(ts *testscript.TestScript, _ bool, args []string) {
	ref, err := name.ParseReference(ts.Getenv("REGISTRY")+"/"+args[0], name.Insecure)
	ts.Check(err)
	img := imageOf(ts, args[1:])
	if strings.HasPrefix(args[0], "wrong-diffid") {
		config, err := img.ConfigFile()
		ts.Check(err)
		config = config.DeepCopy()
		config.RootFS.DiffIDs[0], err = v1.NewHash("sha256:" + strings.Repeat("0", 64))
		ts.Check(err)
		img = staticConfig(ts, img, config)
	}
	if strings.HasPrefix(args[0], "arm64") {
		config, err := img.ConfigFile()
		ts.Check(err)
		config = config.DeepCopy()
		config.Architecture = "arm64"
		img, err = mutate.ConfigFile(img, config)
		ts.Check(err)
	}
	ts.Check(remote.Write(ref, img))
}

// staticConfig returns img with the diffIDs of config, which need not match the
// layers.
func staticConfig(ts *testscript.TestScript, img v1.Image, config *v1.ConfigFile) v1.Image {
	layers, err := img.Layers()
	ts.Check(err)
	out := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	for i, l := range layers {
		rc, err := l.Compressed()
		ts.Check(err)
		data, err := io.ReadAll(rc)
		ts.Check(err)
		add := mutate.Addendum{Layer: falseLayer{static.NewLayer(data, types.OCILayer), config.RootFS.DiffIDs[i]}}
		out, err = mutate.Append(out, add)
		ts.Check(err)
	}
	config.RootFS.DiffIDs = config.RootFS.DiffIDs[:0]
	for _, l := range must(ts)(out.Layers()) {
		id, err := l.DiffID()
		ts.Check(err)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, id)
	}
	out, err = mutate.ConfigFile(out, config)
	ts.Check(err)
	return out
}

// A falseLayer has a diffID that its content does not have.
type falseLayer struct {
	v1.Layer
	diffID v1.Hash
}

func (l falseLayer) DiffID() (v1.Hash, error) { return l.diffID, nil }

func must(ts *testscript.TestScript) func([]v1.Layer, error) []v1.Layer {
	return func(l []v1.Layer, err error) []v1.Layer {
		ts.Check(err)
		return l
	}
}

// writeLayout DIR TAR… writes an image of the layers as an OCI layout. Scripts
// call it oci.
func writeLayout(ts *testscript.TestScript, _ bool, args []string) {
	l, err := layout.Write(ts.MkAbs(args[0]), empty.Index)
	ts.Check(err)
	ts.Check(l.AppendImage(imageOf(ts, args[1:])))
}

// isJSON FILE checks that a file has one value of JSON. Scripts call it isjson.
func isJSON(ts *testscript.TestScript, _ bool, args []string) {
	if text := ts.ReadFile(args[0]); !json.Valid([]byte(text)) {
		ts.Fatalf("no JSON: %q", text)
	}
}

// status CODE COMMAND… runs banger and checks its exit code. It writes stdout
// and stderr to the files "out" and "err".
func status(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	path, err := exec.LookPath("banger")
	if err != nil {
		path = filepath.Join(strings.Split(ts.Getenv("PATH"), ":")[0], "banger")
	}
	cmd := exec.CommandContext(context.Background(), path, args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	for _, v := range []string{"HOME", "PATH", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "TMPDIR"} {
		cmd.Env = append(cmd.Env, v+"="+ts.Getenv(v))
	}
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		ts.Fatalf("run banger: %v", err)
	}
	ts.Check(os.WriteFile(ts.MkAbs("out"), stdout.Bytes(), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("err"), stderr.Bytes(), 0o600))
	if code := cmd.ProcessState.ExitCode(); code != want {
		ts.Fatalf("exit code %d, want %d\n%s", code, want, stderr.String())
	}
}
