package bootplan

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"path"
	"runtime"
	"strings"

	"github.com/banger-vm/banger/internal/guest"
	ext4 "github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/tree"
)

// Bounds in bytes of the data that is read from an executable.
const (
	headBytes = 4 << 10 // the header, or the line that names the interpreter
	maxInterp = 4096    // the interpreter's path: PATH_MAX
)

// checkCommand returns a *NoCommandError if the program of cmd, or the
// interpreter of the program, is not in the image or cannot run. shellForm reports
// whether the image has chosen the program, and not the user: a shell that is missing
// is then the shell of Dockerfile's shell form.
func (r imageRoot) checkCommand(cmd *guest.Command, shellForm bool) error {
	program := cmd.Args[0]
	in, err := r.find(program, cmd)
	if errors.Is(err, errNoFile) {
		if shellForm && path.Base(program) == "sh" && len(cmd.Args) > 1 && cmd.Args[1] == "-c" {
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

// A NoCommandError reports that a command is not in the image, or cannot run
// there.
type NoCommandError struct {
	Program, Why string
	Found        bool // the program is in the image, but cannot run
}

// ExitCode returns the exit code that a shell gives for the error: 126 if the
// program was found, else 127.
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

// Unwrap returns ErrNotBootable.
func (e *NoCommandError) Unwrap() error { return ErrNotBootable }

// find looks up program as execvp(3) does. If no file of that name in PATH is
// executable, it returns the first that is not. The error is errNoFile if there
// is none.
func (r imageRoot) find(program string, cmd *guest.Command) (*ext4.Inode, error) {
	if strings.Contains(program, "/") {
		if !path.IsAbs(program) {
			program = path.Join("/", cmd.Dir, program)
		}
		return r.lookup(program)
	}
	var other *ext4.Inode // has the name, but is not executable
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

// searchPath returns the value of PATH in env, or the guest's default.
func searchPath(env []string) string {
	for _, v := range env {
		if p, ok := strings.CutPrefix(v, "PATH="); ok {
			return p
		}
	}
	return guest.DefaultPath
}

// checkProgram returns a *NoCommandError if the file is not executable, is for
// another architecture, or has an interpreter that is not in the image.
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

// interpreter returns the path of the program that the kernel starts to run an
// executable, or "" if there is none. head is the start of file. why is not
// empty if the executable cannot run on this host.
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
		return "", "" // the guest's kernel may know the format through binfmt_misc
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

// noSections hides the section table of an ELF64 file. debug/elf reads the table
// whole, of any size that the header gives, and interpreter does not need it.
type noSections struct{ io.ReaderAt }

// ReadAt returns zeros in the place of the header's fields e_shoff (at 0x28),
// and e_shnum and e_shstrndx (at 0x3c).
func (r noSections) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(p, off)
	for _, field := range [][2]int64{{0x28, 8}, {0x3c, 4}} {
		for i := max(field[0], off); i < min(field[0]+field[1], off+int64(n)); i++ {
			p[i-off] = 0
		}
	}
	return n, err
}

// machines returns the ELF machine of each GOARCH that banger runs on.
func machines() map[string]elf.Machine {
	return map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
}
