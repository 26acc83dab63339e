package agent

import (
	"fmt"
	"os"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// A tty holds the parameters of a pty-req (RFC 4254, section 6.2).
type tty struct {
	term       string
	rows, cols uint32
	modes      string // encoded terminal modes, section 8
}

// The payloads of pty-req and window-change.
type (
	ptyRequest struct {
		Term                      string
		Cols, Rows, Width, Height uint32
		Modes                     string
	}
	windowChange struct{ Cols, Rows, Width, Height uint32 }
)

// openPTY opens a terminal that belongs to user uid. The peer is for the
// process; the agent keeps the master.
func openPTY(t *tty, uid uint32) (master, peer *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open terminal: /dev/ptmx: %w", err)
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	defer func() {
		if err != nil {
			master.Close()
		}
	}()
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, fmt.Errorf("unlock terminal: %w", err)
	}
	// TIOCGPTPEER opens the peer without a path, so the mounts below /dev/pts
	// do not matter.
	own, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, nil, fmt.Errorf("open terminal's peer: %w", errno)
	}
	peer = os.NewFile(own, "terminal")
	if err := setUpPTY(fd, int(own), t, uid); err != nil {
		peer.Close()
		return nil, nil, err
	}
	return master, peer, nil
}

func setUpPTY(master, peer int, t *tty, uid uint32) error {
	if int(uid) != os.Geteuid() {
		if err := unix.Fchown(peer, int(uid), -1); err != nil {
			return fmt.Errorf("give terminal to its user: %w", err)
		}
	}
	if err := setModes(peer, t.modes); err != nil {
		return err
	}
	return setSize(master, t.rows, t.cols)
}

// setSize sets the terminal's size. The kernel sends SIGWINCH to its processes.
func setSize(master int, rows, cols uint32) error {
	size := unix.Winsize{Row: uint16(min(rows, 1<<16-1)), Col: uint16(min(cols, 1<<16-1))}
	if err := unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &size); err != nil {
		return fmt.Errorf("set terminal size: %w", err)
	}
	return nil
}

// setModes applies the client's terminal modes. It ignores modes that Linux
// does not have.
func setModes(peer int, modes string) error {
	termios, err := unix.IoctlGetTermios(peer, unix.TCGETS)
	if err != nil {
		return fmt.Errorf("get terminal modes: %w", err)
	}
	for b := []byte(modes); len(b) >= 5 && b[0] > 0 && b[0] < 160; b = b[5:] {
		var mode struct {
			Code  byte
			Value uint32
		}
		if err := ssh.Unmarshal(b[:5], &mode); err != nil {
			return fmt.Errorf("read terminal modes: %w", err)
		}
		setMode(termios, mode.Code, mode.Value)
	}
	if err := unix.IoctlSetTermios(peer, unix.TCSETS, termios); err != nil {
		return fmt.Errorf("set terminal modes: %w", err)
	}
	return nil
}

// modeBit is a terminal mode that is one bit.
type modeBit struct {
	code byte
	bit  uint32
}

func setMode(t *unix.Termios, code byte, value uint32) {
	characters := map[byte]int{
		1: unix.VINTR, 2: unix.VQUIT, 3: unix.VERASE, 4: unix.VKILL, 5: unix.VEOF, 6: unix.VEOL, 7: unix.VEOL2,
		8: unix.VSTART, 9: unix.VSTOP, 10: unix.VSUSP, 12: unix.VREPRINT, 13: unix.VWERASE, 14: unix.VLNEXT, 18: unix.VDISCARD,
	}
	if i, ok := characters[code]; ok {
		if value > 254 {
			value = 0 // 255 means that the client has no such character
		}
		t.Cc[i] = byte(value)
		return
	}
	for _, group := range []struct {
		flags *uint32
		bits  []modeBit
	}{
		{&t.Iflag, []modeBit{
			{30, unix.IGNPAR}, {31, unix.PARMRK}, {32, unix.INPCK}, {33, unix.ISTRIP}, {34, unix.INLCR}, {35, unix.IGNCR},
			{36, unix.ICRNL}, {37, unix.IUCLC}, {38, unix.IXON}, {39, unix.IXANY}, {40, unix.IXOFF}, {41, unix.IMAXBEL}, {42, unix.IUTF8},
		}},
		{&t.Lflag, []modeBit{
			{50, unix.ISIG}, {51, unix.ICANON}, {52, unix.XCASE}, {53, unix.ECHO}, {54, unix.ECHOE}, {55, unix.ECHOK}, {56, unix.ECHONL},
			{57, unix.NOFLSH}, {58, unix.TOSTOP}, {59, unix.IEXTEN}, {60, unix.ECHOCTL}, {61, unix.ECHOKE}, {62, unix.PENDIN},
		}},
		{&t.Oflag, []modeBit{
			{70, unix.OPOST}, {71, unix.OLCUC}, {72, unix.ONLCR}, {73, unix.OCRNL}, {74, unix.ONOCR}, {75, unix.ONLRET},
		}},
	} {
		for _, m := range group.bits {
			if m.code != code {
				continue
			}
			*group.flags &^= m.bit
			if value != 0 {
				*group.flags |= m.bit
			}
		}
	}
}
