package source

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

// maxPackages is the maximum number of packages of one kernel.
const maxPackages = 16

// ErrNoApt reports that apt-get, which downloads packages, is not installed.
var ErrNoApt = errors.New("apt-get not found")

// An AptError holds the error messages of a failed apt-get.
type AptError struct{ Message string }

func (e *AptError) Error() string { return "apt-get: " + e.Message }

// fetchApt downloads a package and its dependencies that isKernelPackage
// accepts. apt checks the signatures; fetchApt trusts the packages that it
// resolves.
func (f *fetcher) fetchApt(ctx context.Context, wanted string) error {
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
		f.options.report("fetching package %s", next)
		file, err := f.download(ctx, program, next)
		if err != nil {
			return err
		}
		d, err := f.addDeb(ctx, file)
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
	f.origin = "apt:" + strings.Join(have, ",")
	return nil
}

// packageOf returns the name in PACKAGE[:ARCH][=VERSION].
func packageOf(wanted string) string {
	name, _, _ := strings.Cut(wanted, "=")
	name, _, _ = strings.Cut(name, ":")
	return name
}

// download downloads one package into a new folder and returns its path.
func (f *fetcher) download(ctx context.Context, program, wanted string) (string, error) {
	dir, err := os.MkdirTemp(f.scratch, "apt-*")
	if err != nil {
		return "", err
	}
	const grace = 5 * time.Second // for the end of its pipes after its death
	cmd := exec.CommandContext(ctx, program, "-q", "download", "--", wanted)
	cmd.Dir = dir
	// aptMessages parses the output, so it must be in English.
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = grace
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "", &AptError{aptMessages(string(out), err)}
	}
	file, err := onlyDeb(dir)
	if err != nil {
		return "", fmt.Errorf("apt-get download %s: %w", wanted, err)
	}
	return file, nil
}

// onlyDeb returns the path of the only package in dir. It does not use
// filepath.Glob, because the name of dir may contain characters of a pattern.
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

// aptMessages returns the error messages in the output of apt-get, which begin
// with "E: ", or the text of err if there are none.
func aptMessages(out string, err error) string {
	const most = 500 // bytes
	var messages []string
	for line := range strings.Lines(out) {
		if text, ok := strings.CutPrefix(line, "E: "); ok {
			messages = append(messages, strings.TrimSpace(text))
		}
	}
	if len(messages) == 0 {
		return err.Error()
	}
	text := strings.Join(messages, "; ")
	return text[:min(len(text), most)]
}

// addDeb adds the tree of the package in file.
func (f *fetcher) addDeb(ctx context.Context, file string) (*deb, error) {
	tarFile := filepath.Join(f.scratch, "data.tar")
	d, err := unpackDeb(ctx, file, tarFile)
	if err != nil {
		return nil, err
	}
	if _, err = f.add(ctx, "tar:"+tarFile, f.localOptions()); err != nil {
		return nil, fmt.Errorf("package %s: %w", d.name, err)
	}
	return d, os.Remove(tarFile)
}

// fetchDebs adds packages that are files on this host.
func (f *fetcher) fetchDebs(ctx context.Context, files []string) error {
	if len(files) > maxPackages {
		return fmt.Errorf("more than %d packages", maxPackages)
	}
	var have []string
	for _, file := range files {
		d, err := f.addDeb(ctx, file)
		if err != nil {
			return err
		}
		have = append(have, d.name+"="+d.version)
	}
	f.origin = "deb:" + strings.Join(have, ",")
	return nil
}
