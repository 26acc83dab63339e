package cli

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"

	"github.com/rogpeppe/go-internal/testscript"
)

// mkkernel FILE RELEASE writes an ELF header and a version string, which banger
// takes for a kernel without modules.
func mkkernel(ts *testscript.TestScript, _ bool, args []string) {
	head := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: 64}
	copy(head.Ident[:], "\x7fELF\x02\x01\x01")
	var b bytes.Buffer
	ts.Check(binary.Write(&b, binary.LittleEndian, head))
	b.WriteString("Linux version " + args[1] + " (gcc) #1\x00")
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b.Bytes(), 0o600))
}
