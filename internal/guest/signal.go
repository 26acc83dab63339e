package guest

import (
	"fmt"
	"strconv"
	"strings"
)

// The first and the last real-time signal that C libraries make available to
// programs. They reserve the kernel's first two, 32 and 33 (signal(7)).
const (
	sigRTMin = 34
	sigRTMax = 64
)

// signals lists the signals of Linux on x86 and arm by number (signal(7)),
// without SIG.
const signals = " HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU" +
	" URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"

// ParseSignal returns the number of a signal. s is a name such as TERM, SIGTERM
// or SIGRTMIN+3, or a number.
func ParseSignal(s string) (int, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > sigRTMax {
			return 0, fmt.Errorf("no signal has the number %d", n)
		}
		return n, nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	for n, known := range strings.Split(signals, " ") {
		if name == known && n > 0 {
			return n, nil
		}
	}
	for base, number := range map[string]int{"RTMIN": sigRTMin, "RTMAX": sigRTMax} {
		rest, ok := strings.CutPrefix(name, base)
		if !ok {
			continue
		}
		offset := 0
		if rest != "" {
			var err error
			if offset, err = strconv.Atoi(rest); err != nil || rest[0] != '+' && rest[0] != '-' {
				break
			}
		}
		if n := number + offset; n >= sigRTMin && n <= sigRTMax {
			return n, nil
		}
	}
	return 0, fmt.Errorf("no signal is named %q", s)
}

// SignalName returns a signal's name in SSH's form, without SIG, such as TERM
// or RTMIN+3. If the signal has no name, SignalName returns its number.
func SignalName(n int) string {
	names := strings.Split(signals, " ")
	switch {
	case n > 0 && n < len(names):
		return names[n]
	case n == sigRTMin:
		return "RTMIN"
	case n > sigRTMin && n <= sigRTMax:
		return "RTMIN+" + strconv.Itoa(n-sigRTMin)
	}
	return strconv.Itoa(n)
}
