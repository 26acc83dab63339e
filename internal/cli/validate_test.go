package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/poll"
	"github.com/banger-vm/banger/internal/daemon"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/machine"
)

// TestSpecIsRefusedAlike sends bad descriptions of a machine through the command
// line and through the daemon's API, and expects the same refusal.
func TestSpecIsRefusedAlike(t *testing.T) {
	client := serveTestDaemon(t)
	for _, row := range []struct {
		name  string
		flags []string
		req   api.CreateRequest
		want  string
	}{
		{"an unknown restart policy", []string{"--restart=sometimes:-3"},
			api.CreateRequest{Config: api.Config{Restart: api.Restart{Policy: "sometimes", Retries: -3}}}, `restart policy "sometimes"`},
		{"a negative number of retries", []string{"--restart=on-failure:-3"},
			api.CreateRequest{Config: api.Config{Restart: api.Restart{Policy: "on-failure", Retries: -3}}}, "-3 retries"},
		{"retries of another policy", []string{"--restart=always:3"},
			api.CreateRequest{Config: api.Config{Restart: api.Restart{Policy: "always", Retries: 3}}}, "only on-failure"},
		{"removal with a restart", []string{"--rm", "--restart=always"},
			api.CreateRequest{Remove: true, Config: api.Config{Restart: api.Restart{Policy: "always"}}}, "leave out one of the two"},
		{"an unknown accelerator", []string{"--accel=warp"}, api.CreateRequest{Config: api.Config{Accel: "warp"}}, "want kvm or tcg"},
		{"an unknown model", []string{"--machine=pc"}, api.CreateRequest{Config: api.Config{Model: "pc"}}, "want microvm or q35"},
		{"an unknown init", []string{"--init=runit"}, api.CreateRequest{Config: api.Config{Init: "runit"}}, "want auto, image or banger"},
		{"an unknown disk driver", []string{"--disk-driver=zfs"}, api.CreateRequest{Config: api.Config{DiskDriver: "zfs"}}, "want auto, reflink"},
		{"a relative working directory", []string{"--workdir=here"}, api.CreateRequest{Config: api.Config{Dir: "here"}}, "want an absolute path"},
		{"a bad name", []string{"--name=a/b"}, api.CreateRequest{Name: "a/b"}, `machine name "a/b"`},
		{"a name that is an ID", []string{"--name=0123456789ab"}, api.CreateRequest{Name: "0123456789ab"}, "are an ID"},
		{"a bad hostname", []string{"--hostname=a_b"}, api.CreateRequest{Config: api.Config{Hostname: "a_b"}}, `hostname "a_b"`},
		{"too many processors", []string{"--cpus=256"}, api.CreateRequest{Config: api.Config{CPUs: 256}}, "want 1 to 255"},
		{"a negative number of processors", []string{"--cpus=-1"}, api.CreateRequest{Config: api.Config{CPUs: -1}}, "want 1 to 255"},
		{"too little memory", []string{"--memory=1M"}, api.CreateRequest{Config: api.Config{Memory: 1 << 20}}, "want 128 MiB or more"},
		{"an odd size of memory", []string{"--memory=536870913"}, api.CreateRequest{Config: api.Config{Memory: 536870913}}, "memory of 536870913 bytes: want a multiple of 1 MiB"},
		{"an odd size of the disk", []string{"--disk-size=1048577"}, api.CreateRequest{Config: api.Config{DiskSize: 1048577}}, "disk size of 1048577 bytes: want a multiple of 512 bytes"},
		{"a read-only disk of another size", []string{"--read-only", "--disk-size=1G"},
			api.CreateRequest{Config: api.Config{ReadOnly: true, DiskSize: 1 << 30}}, "read-only disk"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var stderr bytes.Buffer
			code := Main(t.Context(), "test", append(append([]string{"create"}, row.flags...), "image"), strings.NewReader(""), &bytes.Buffer{}, &stderr)
			line, _, _ := strings.Cut(stderr.String(), "\n")
			if code != 2 || !strings.Contains(line, row.want) {
				t.Errorf("command line: code %d, %q; want 2 and %q", code, line, row.want)
			}
			row.req.Image = "image"
			_, err := client.Create(t.Context(), row.req)
			refusal, ok := errors.AsType[*api.Error](err)
			if !ok || refusal.Code != api.CodeInvalid || "banger: "+refusal.Message != line {
				t.Errorf("daemon: %v; want %s and the line %q", err, api.CodeInvalid, line)
			}
		})
	}
}

// serveTestDaemon serves a daemon without images, kernels and machines in the
// folders that the environment names, and returns a client of it.
func serveTestDaemon(t *testing.T) *api.Client {
	t.Helper()
	dir := t.TempDir()
	data, runtime := filepath.Join(dir, "data", "banger"), filepath.Join(dir, "run", "banger")
	for name, value := range map[string]string{
		"XDG_DATA_HOME": filepath.Dir(data), "XDG_RUNTIME_DIR": filepath.Dir(runtime),
		"XDG_CACHE_HOME": filepath.Join(dir, "cache"), "XDG_CONFIG_HOME": filepath.Join(dir, "config"),
	} {
		t.Setenv(name, value)
	}
	if err := os.MkdirAll(runtime, 0o700); err != nil {
		t.Fatal(err)
	}
	machines, err := machine.Open(data, runtime)
	if err != nil {
		t.Fatal(err)
	}
	images, imagesErr := store.Open(data)
	kernels, kernelsErr := kernel.Open(data)
	if err := errors.Join(imagesErr, kernelsErr); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() {
		ended <- daemon.Serve(ctx, daemon.Config{
			Machines: machines, Images: images, Kernels: kernels, Supervisor: []string{"false"}, Version: "test", DataRoot: data,
		})
	}()
	client := &api.Client{Socket: daemon.SocketPath(machines.Runtime()), Program: "test"}
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	limited, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err = poll.Until(limited, 10*time.Millisecond, func() (bool, error) {
		_, err := client.Info(limited)
		return err == nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return client
}
