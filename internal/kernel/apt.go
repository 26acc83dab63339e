package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// maxPackages bounds how many packages a kernel may be made of.
const maxPackages = 16

// ErrNoApt says that apt-get, which fetches packages, is not installed.
var ErrNoApt = errors.New("apt-get not found")

// An AptError is what apt-get said when it failed.
type AptError struct{ Said string }

func (e *AptError) Error() string { return "apt-get: " + e.Said }

// apt fetches a package and those that it depends on for its kernel and
// modules. apt checks the signatures, and what it resolves is taken.
func (g *gathering) apt(ctx context.Context, wanted string) error {
	program, err := exec.LookPath("apt-get")
	if err != nil {
		return ErrNoApt
	}
	queue := []string{wanted}
	seen := map[string]bool{packageOf(wanted): true}
	var have []string
	for len(queue) > 0 {
		if len(have) >= maxPackages {
			return fmt.Errorf("%s depends on more than %d packages", wanted, maxPackages)
		}
		next := queue[0]
		queue = queue[1:]
		g.o.report("fetching package %s", next)
		file, err := g.download(ctx, program, next)
		if err != nil {
			return err
		}
		d, err := g.deb(ctx, file)
		if err = errors.Join(err, os.Remove(file)); err != nil {
			return err
		}
		have = append(have, d.name+"="+d.version)
		for _, dep := range d.depends {
			if seen[dep.name] {
				continue
			}
			seen[dep.name] = true
			if dep.version != "" {
				dep.name += "=" + dep.version
			}
			queue = append(queue, dep.name)
		}
	}
	g.origin = "apt:" + strings.Join(have, ",")
	return nil
}

func packageOf(wanted string) string {
	name, _, _ := strings.Cut(wanted, "=")
	name, _, _ = strings.Cut(name, ":")
	return name
}

// download fetches one package into a folder of its own and returns its path.
func (g *gathering) download(ctx context.Context, program, wanted string) (string, error) {
	dir, err := os.MkdirTemp(g.scratch, "apt-*")
	if err != nil {
		return "", err
	}
	const grace = 5 * time.Second // for its pipes, once it is dead
	cmd := exec.CommandContext(ctx, program, "-q", "download", "--", wanted)
	cmd.Dir = dir
	// The messages are read, so they must not come translated.
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = grace
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "", &AptError{aptSaid(string(out), err)}
	}
	file, err := onlyDeb(dir)
	if err != nil {
		return "", fmt.Errorf("apt-get download %s: %w", wanted, err)
	}
	return file, nil
}

// onlyDeb returns the path of the one package in dir, whose own name is no
// pattern.
func onlyDeb(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var debs []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".deb") {
			debs = append(debs, filepath.Join(dir, e.Name()))
		}
	}
	if len(debs) != 1 {
		return "", fmt.Errorf("gave %d packages", len(debs))
	}
	return debs[0], nil
}

// aptSaid returns the errors in the output of apt.
func aptSaid(out string, err error) string {
	const most = 500 // bytes
	var said []string
	for line := range strings.Lines(out) {
		if text, ok := strings.CutPrefix(line, "E: "); ok {
			said = append(said, strings.TrimSpace(text))
		}
	}
	if len(said) == 0 {
		return err.Error()
	}
	text := strings.Join(said, "; ")
	return text[:min(len(text), most)]
}

// deb makes a tree of the package in a file.
func (g *gathering) deb(ctx context.Context, file string) (*deb, error) {
	tarFile := filepath.Join(g.scratch, "data.tar")
	d, err := unpackDeb(ctx, file, tarFile)
	if err != nil {
		return nil, err
	}
	if _, err = g.add(ctx, "tar:"+tarFile, g.local()); err != nil {
		return nil, fmt.Errorf("package %s: %w", d.name, err)
	}
	return d, os.Remove(tarFile)
}

// debs takes packages that are files here.
func (g *gathering) debs(ctx context.Context, files []string) error {
	if len(files) > maxPackages {
		return fmt.Errorf("more than %d packages", maxPackages)
	}
	var have []string
	for _, file := range files {
		d, err := g.deb(ctx, file)
		if err != nil {
			return err
		}
		have = append(have, d.name+"="+d.version)
	}
	g.origin = "deb:" + strings.Join(have, ",")
	return nil
}
