package confine

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refused are the system calls that fail with EPERM in a confined process. They
// reach services and objects of the user that Landlock does not guard: it leaves
// sockets with a path alone before ABI 9, for example, and D-Bus is one.
var refused = []uint32{
	// New connections. The descriptors that the process inherits stay usable.
	unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_CONNECT,
	unix.SYS_IO_URING_SETUP, // makes and connects sockets too
	// The user's keys, shared memory and message queues.
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	unix.SYS_SHMGET, unix.SYS_SHMAT, unix.SYS_MSGGET, unix.SYS_SEMGET, unix.SYS_MQ_OPEN,
	// Other processes of the user.
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD,
	// Interfaces of the kernel with a history of faults, and namespaces.
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_UNSHARE, unix.SYS_SETNS,
}

// auditArch returns the AUDIT_ARCH value of this program's system calls.
func auditArch() (uint32, error) {
	switch runtime.GOARCH {
	case "amd64":
		return unix.AUDIT_ARCH_X86_64, nil
	case "arm64":
		return unix.AUDIT_ARCH_AARCH64, nil
	}
	return 0, fmt.Errorf("filter system calls on %s: not supported", runtime.GOARCH)
}

// filterCalls installs the seccomp filter on the calling thread.
func filterCalls() error {
	arch, err := auditArch()
	if err != nil {
		return err
	}
	program := filter(arch)
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if _, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return fmt.Errorf("filter system calls: %w", errno)
	}
	runtime.KeepAlive(program)
	return nil
}

// filter returns the filter as a program of classic BPF. It ends a process that
// makes a system call of another architecture, whose calls have other numbers.
func filter(arch uint32) []unix.SockFilter {
	const (
		numberOffset = 0 // in struct seccomp_data of linux/seccomp.h
		archOffset   = 4
		x32Bit       = 0x40000000 // __X32_SYSCALL_BIT of x86's asm/unistd.h
		load         = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal        = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		atLeast      = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		ret          = unix.BPF_RET | unix.BPF_K
	)
	program := []unix.SockFilter{
		{Code: load, K: archOffset},
		{Code: equal, Jt: 1, K: arch},
		{Code: ret, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: load, K: numberOffset},
		{Code: atLeast, Jt: uint8(len(refused)) + 1, K: x32Bit},
	}
	for i, number := range refused {
		program = append(program, unix.SockFilter{Code: equal, Jt: uint8(len(refused) - i), K: number})
	}
	return append(program,
		unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)})
}
