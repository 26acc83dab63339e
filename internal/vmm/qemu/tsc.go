package qemu

import (
	"bufio"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
)

// hostTSC returns the frequency of the host's time stamp counter in kHz, or 0
// if /proc/cpuinfo does not have it. If the processor has a counter, Linux
// computes bogomips as twice its MHz (calibrate_delay_is_known of
// arch/x86/kernel/tsc.c).
func hostTSC() (int, error) {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return parseTSC(f)
}

func parseTSC(r io.Reader) (int, error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(name) != "bogomips" {
			continue
		}
		bogomips, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err == nil && bogomips >= 1 && bogomips <= 1e6 {
			return int(math.Round(bogomips / 2 * 1000)), nil
		}
		break
	}
	return 0, lines.Err()
}
