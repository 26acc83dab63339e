// Package bootplan decides from an image and the configuration of a machine what
// runs in the machine, and looks into the image for reasons why that cannot run.
// It reads the disk of an untrusted image, with bounds, and changes nothing.
package bootplan

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/guest"
	ext4 "github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/image/tree"
	"github.com/banger-vm/banger/internal/machine/spec"
)

// ErrNotBootable says that an image cannot run as asked; the error's text
// says what is missing.
var ErrNotBootable = errors.New("image cannot run")

func notBootable(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrNotBootable}, args...)...)
}

// A Plan is what a machine runs.
type Plan struct {
	Init     guest.Init     `json:"init"`
	InitArgs []string       `json:"initArgs,omitempty"` // of the image's init
	Main     *guest.Command `json:"main,omitempty"`     // nil where the image's init is all there is to run
}

// Words are the command that a list of machines shows.
func (p *Plan) Words() []string {
	if p.Main != nil {
		return p.Main.Args
	}
	return p.InitArgs
}

// inits are where images have theirs, best known first.
var inits = []string{"/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/sbin/openrc-init", "/init"}

// New decides what runs in a machine, and looks into the image's disk
// for what would keep it from running.
func New(img *store.Image, disk string, c *spec.Config) (*Plan, error) {
	if err := checkArch(img.Platform); err != nil {
		return nil, err
	}
	f, err := os.Open(disk)
	if err != nil {
		return nil, fmt.Errorf("open image disk: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open image disk: %w", err)
	}
	fs, err := ext4.Open(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("open image disk: %w", err)
	}
	root := imageRoot{fs}
	cmd := command(c, &img.Config)
	if cmd.StopSignal != "" {
		if _, err := guest.ParseSignal(cmd.StopSignal); err != nil {
			return nil, notBootable("its stop signal: %w", err)
		}
	}
	asked := len(c.Args) > 0 || c.Entrypoint != nil && *c.Entrypoint != ""
	choice := c.Init
	if choice == spec.InitAuto {
		choice = spec.InitBanger
		if len(cmd.Args) > 0 && isInit(cmd.Args[0]) {
			choice = spec.InitImage
		}
	}
	if choice == spec.InitImage {
		return planImageInit(root, c, cmd, asked)
	}
	if len(cmd.Args) == 0 {
		return nil, notBootable("it has neither an entrypoint nor a command, and none was given")
	}
	cmd.Main = true
	return &Plan{Init: guest.InitBanger, Main: &cmd}, root.checkCommand(&cmd)
}

// planImageInit runs the image's init; a command besides it is run once the
// machine is up.
func planImageInit(root imageRoot, c *spec.Config, cmd guest.Command, asked bool) (*Plan, error) {
	if len(cmd.Args) > 0 && isInit(cmd.Args[0]) {
		if what := forCommand(c); what != "" {
			return nil, spec.Errorf("%s is for a command, and here the image's init is all that runs", what)
		}
		plain := cmd
		plain.User, plain.Dir = "", ""
		return &Plan{Init: guest.InitImage, InitArgs: cmd.Args}, root.checkCommand(&plain)
	}
	at := slices.IndexFunc(inits, func(p string) bool { _, err := root.lookup(p); return err == nil })
	if at < 0 {
		return nil, notBootable("it has no init of its own (looked for %s)", strings.Join(inits, ", "))
	}
	plan := &Plan{Init: guest.InitImage, InitArgs: []string{inits[at]}}
	if !asked {
		if what := forCommand(c); what != "" {
			return nil, spec.Errorf("%s is for a command, and here the image's init is all that runs", what)
		}
		return plan, nil
	}
	cmd.Main = true
	plan.Main = &cmd
	return plan, root.checkCommand(&cmd)
}

func isInit(arg string) bool { return slices.Contains(inits, arg) }

func checkArch(platform string) error {
	arch := platform
	if parts := strings.Split(platform, "/"); len(parts) > 1 {
		arch = parts[1]
	}
	if arch != runtime.GOARCH && platform != "" {
		return notBootable("it is for %s and this host is linux/%s", platform, runtime.GOARCH)
	}
	return nil
}

// An imageRoot looks paths up in an image's disk as a process whose root it
// is would.
type imageRoot struct{ fs *ext4.FS }

// Bounds of what is read from a disk that is not trusted.
const (
	maxLinks  = 40      // MAXSYMLINKS of linux/namei.h
	headBytes = 4 << 10 // of an executable: its header and its interpreter's name
	maxInterp = 4096    // bytes, PATH_MAX
	rootInode = 2       // EXT4_ROOT_INO
)

var errNoFile = errors.New("no such file")

// lookup resolves name, and symlinks in it, from the root.
func (r imageRoot) lookup(name string) (*ext4.Inode, error) {
	links := 0
	parts := splitPath(name)
	stack := []uint32{rootInode}
	for len(parts) > 0 {
		part := parts[0]
		parts = parts[1:]
		if part == ".." {
			stack = stack[:max(1, len(stack)-1)]
			continue
		}
		in, err := r.child(stack[len(stack)-1], part)
		if err != nil {
			return nil, err
		}
		if in.Type != tree.Symlink {
			stack = append(stack, in.Number)
			continue
		}
		if links++; links > maxLinks {
			return nil, errors.New("too many symbolic links")
		}
		target, err := r.fs.Readlink(in)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(target, "/") {
			stack = stack[:1]
		}
		parts = append(splitPath(target), parts...)
	}
	return r.fs.Inode(stack[len(stack)-1])
}

func (r imageRoot) child(dir uint32, name string) (*ext4.Inode, error) {
	in, err := r.fs.Inode(dir)
	if err != nil {
		return nil, err
	}
	if in.Type != tree.Directory {
		return nil, errNoFile
	}
	n, err := r.fs.Lookup(in, name)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, errNoFile
	}
	return r.fs.Inode(n)
}

func splitPath(name string) []string {
	return slices.DeleteFunc(strings.Split(name, "/"), func(p string) bool { return p == "" || p == "." })
}

// checkCommand refuses a command whose program, or what runs the program, is
// not in the image.
func (r imageRoot) checkCommand(cmd *guest.Command) error {
	program := cmd.Args[0]
	in, err := r.find(program, cmd)
	if errors.Is(err, errNoFile) {
		if path.Base(program) == "sh" && len(cmd.Args) > 1 && cmd.Args[1] == "-c" {
			return &NoCommandError{Program: program, Why: "its command is in shell form and it has no shell: give the program itself, with --entrypoint"}
		}
		return &NoCommandError{Program: program, Why: "no such file in the image"}
	}
	if err != nil {
		return fmt.Errorf("look for %s in the image: %w", program, err)
	}
	if in.Type != tree.Regular {
		return &NoCommandError{program, "is a " + in.Type.String(), true}
	}
	return r.checkProgram(program, in)
}

// A NoCommandError says that the command is not to be found in the image, or
// cannot run there.
type NoCommandError struct {
	Program, Why string
	Found        bool // it is there, but cannot run
}

// ExitCode is the one that a shell gives for the error: 126 or 127.
func (e *NoCommandError) ExitCode() int {
	const notExecutable, notFound = 126, 127
	if e.Found {
		return notExecutable
	}
	return notFound
}

func (e *NoCommandError) Error() string {
	return fmt.Sprintf("%v: %s: %s", ErrNotBootable, e.Program, e.Why)
}

// Unwrap makes it an ErrNotBootable.
func (e *NoCommandError) Unwrap() error { return ErrNotBootable }

// find looks program up as execvp(3) would.
func (r imageRoot) find(program string, cmd *guest.Command) (*ext4.Inode, error) {
	if strings.Contains(program, "/") {
		if !path.IsAbs(program) {
			program = path.Join("/", cmd.Dir, program)
		}
		return r.lookup(program)
	}
	var other *ext4.Inode // of that name, but not to be executed
	for _, dir := range strings.Split(searchPath(cmd.Env), ":") {
		in, err := r.lookup(path.Join("/", dir, program))
		switch {
		case errors.Is(err, errNoFile):
		case err != nil:
			return nil, err
		case in.Type == tree.Regular && in.Mode&0o111 != 0:
			return in, nil
		case other == nil:
			other = in
		}
	}
	if other == nil {
		return nil, errNoFile
	}
	return other, nil
}

func searchPath(env []string) string {
	for _, v := range env {
		if p, ok := strings.CutPrefix(v, "PATH="); ok {
			return p
		}
	}
	return guest.DefaultPath
}

// checkProgram looks at the head of an executable: its architecture, and
// whether its interpreter is there.
func (r imageRoot) checkProgram(program string, in *ext4.Inode) error {
	data, err := r.fs.Data(in)
	if err != nil {
		return fmt.Errorf("read %s in the image: %w", program, err)
	}
	head := make([]byte, min(data.Size(), headBytes))
	if _, err := data.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s in the image: %w", program, err)
	}
	if in.Mode&0o111 == 0 {
		return &NoCommandError{program, "is not executable", true}
	}
	interp, why := interpreter(head, data)
	if why != "" {
		return &NoCommandError{program, why, true}
	}
	if interp == "" {
		return nil
	}
	if _, err := r.lookup(interp); errors.Is(err, errNoFile) {
		return &NoCommandError{program, "needs " + interp + ", which is not in the image (another C library, or none)", true}
	}
	return nil
}

// interpreter returns the program that the kernel starts for an executable,
// "" for none, or why the executable cannot run here.
func interpreter(head []byte, file io.ReaderAt) (interp, why string) {
	if line, ok := bytes.CutPrefix(head, []byte("#!")); ok {
		line, _, _ = bytes.Cut(line, []byte("\n"))
		fields := strings.Fields(string(line))
		if len(fields) == 0 {
			return "", "its first line names no interpreter"
		}
		return fields[0], ""
	}
	if !bytes.HasPrefix(head, []byte(elf.ELFMAG)) {
		return "", "" // binfmt_misc may know it; the kernel decides
	}
	if len(head) <= elf.EI_CLASS || elf.Class(head[elf.EI_CLASS]) != elf.ELFCLASS64 {
		return "", "is not for a 64-bit machine"
	}
	f, err := elf.NewFile(noSections{file})
	if err != nil {
		return "", "is not a sound ELF file"
	}
	if want := machines()[runtime.GOARCH]; f.Machine != want {
		return "", fmt.Sprintf("is for %s and this host is %s", f.Machine, want)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP && p.Filesz <= maxInterp {
			name := make([]byte, p.Filesz)
			if _, err := p.ReadAt(name, 0); err == nil {
				return string(bytes.TrimRight(name, "\x00")), ""
			}
		}
	}
	return "", ""
}

// noSections hides the section table of an ELF64 file: e_shoff, and e_shnum
// with e_shstrndx. Nothing here wants it, and it would be read whole, as large
// as the image says it is.
type noSections struct{ io.ReaderAt }

// ReadAt gives zeros in the place of what is hidden.
func (r noSections) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(p, off)
	for _, field := range [][2]int64{{0x28, 8}, {0x3c, 4}} {
		for i := max(field[0], off); i < min(field[0]+field[1], off+int64(n)); i++ {
			p[i-off] = 0
		}
	}
	return n, err
}

func machines() map[string]elf.Machine {
	return map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
}
