package source

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/banger-vm/banger/internal/kernel/compression"
)

// Limits of a package, in bytes.
const (
	maxControl     = 16 << 20 // control.tar, decompressed
	maxControlFile = 1 << 20
	maxDependency  = 256 << 10 // the fields Pre-Depends and Depends
	maxTree        = 16 << 30  // a tar, decompressed
)

// deb is the control data of a Debian package, deb(5).
type deb struct {
	name    string
	version string
	depends []dependency // see parseDepends
}

// A dependency is a package that a Depends field names.
type dependency struct {
	name    string
	version string // exact, or ""
}

// readDeb reads the package in r and writes its data.tar, decompressed, to
// data. Like dpkg it ignores the members after that.
func readDeb(ctx context.Context, r io.Reader, data io.Writer) (*deb, error) {
	ar := &arReader{r: bufio.NewReaderSize(r, 1<<20)}
	if name, err := ar.next(); err != nil {
		return nil, err
	} else if name != "debian-binary" {
		return nil, fmt.Errorf("first member is %s: not a Debian package", name)
	}
	if version, err := compression.ReadAll(ar, 16); err != nil || !strings.HasPrefix(string(version), "2.") {
		return nil, fmt.Errorf("package format %q: want 2.0", version)
	}
	var d *deb
	for {
		name, err := ar.next()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("package has no data.tar")
		}
		if err != nil {
			return nil, err
		}
		switch base := strings.TrimSuffix(name, path.Ext(name)); {
		case strings.HasPrefix(name, "_"): // deb(5): readers ignore such a member
		case name == "control.tar" || base == "control.tar":
			if d, err = readControl(ctx, ar); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		case name == "data.tar" || base == "data.tar":
			if d == nil {
				return nil, errors.New("package has no control.tar before its data.tar")
			}
			if err := compression.Copy(ctx, data, ar, maxTree); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			return d, nil
		default:
			return nil, fmt.Errorf("package has a member %q", name)
		}
	}
}

// readControl reads the file control in a control.tar. It skips the package's
// scripts and checksums.
func readControl(ctx context.Context, r io.Reader) (*deb, error) {
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		pw.CloseWithError(compression.Copy(ctx, pw, r, maxControl))
	}()
	defer func() {
		pr.Close() // the writer's next Write fails
		<-done
	}()
	var found *deb
	for t := tar.NewReader(pr); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if path.Clean("/"+h.Name) != "/control" || h.Typeflag != tar.TypeReg {
			continue
		}
		text, err := compression.ReadAll(t, maxControlFile)
		if err != nil {
			return nil, err
		}
		if found, err = parseControl(string(text)); err != nil {
			return nil, err
		}
	}
	if found == nil {
		return nil, errors.New("no control file")
	}
	return found, nil
}

// parseControl parses a control file, deb-control(5).
func parseControl(text string) (*deb, error) {
	fields := map[string]string{}
	last := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
			fields[last] += " " + strings.TrimSpace(line)
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			continue // the empty line after the only paragraph
		}
		last = strings.ToLower(name)
		fields[last] = strings.TrimSpace(value)
	}
	d := &deb{name: fields["package"], version: fields["version"]}
	if !isPackageName(d.name) || !isPackageVersion(d.version) {
		return nil, fmt.Errorf("control file of package %q, version %q", d.name, d.version)
	}
	depends := fields["pre-depends"] + "," + fields["depends"]
	if len(depends) > maxDependency {
		return nil, &compression.SizeError{Limit: maxDependency}
	}
	d.depends = parseDepends(depends)
	return d, nil
}

// parseDepends returns the dependencies that may contain a part of a kernel. Of
// several alternatives it returns the first such package, as apt installs the
// first alternative.
func parseDepends(field string) (out []dependency) {
	for group := range strings.SplitSeq(field, ",") {
		for alternative := range strings.SplitSeq(group, "|") {
			name, rest, _ := strings.Cut(strings.TrimSpace(alternative), " ")
			name, _, _ = strings.Cut(name, ":")
			if !isKernelPackage(name) {
				continue
			}
			d := dependency{name: name}
			rest = strings.Trim(strings.TrimSpace(rest), "()")
			if version, ok := strings.CutPrefix(rest, "="); ok && isPackageVersion(strings.TrimSpace(version)) {
				d.version = strings.TrimSpace(version)
			}
			out = append(out, d)
			break
		}
	}
	return out
}

// isKernelPackage reports whether a package of that name may contain a kernel
// or modules. Debian and Ubuntu use these prefixes.
func isKernelPackage(name string) bool {
	if !isPackageName(name) {
		return false
	}
	for _, prefix := range []string{"linux-image-", "linux-modules-", "linux-binary-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// isPackageName implements Debian Policy section 5.6.1.
func isPackageName(s string) bool {
	return len(s) >= 2 && len(s) <= 200 && strings.Trim(s, lowerAlnum+"+-.") == "" && strings.Contains(lowerAlnum, s[:1])
}

// isPackageVersion implements Debian Policy section 5.6.12.
func isPackageVersion(s string) bool {
	return s != "" && len(s) <= 200 && strings.Trim(strings.ToLower(s), lowerAlnum+"+-.:~") == "" && s[0] != '-'
}

const lowerAlnum = "abcdefghijklmnopqrstuvwxyz0123456789"

// unpackDeb writes the data.tar of the package in the file name to tarFile.
func unpackDeb(ctx context.Context, name, tarFile string) (d *deb, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out, err := os.Create(tarFile)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	d, err = readDeb(ctx, f, out)
	if err != nil {
		return nil, fmt.Errorf("read package %s: %w", path.Base(name), err)
	}
	return d, nil
}
