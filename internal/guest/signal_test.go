package guest

import "testing"

func TestParseSignal(t *testing.T) {
	for name, want := range map[string]int{
		"TERM": 15, "SIGTERM": 15, "sigterm": 15, "15": 15, "9": 9, "HUP": 1, "SYS": 31, "SIGRTMIN": 34, "RTMIN+3": 37,
		"SIGRTMIN+30": 64, "SIGRTMAX": 64, "SIGRTMAX-1": 63, "33": 33, "64": 64,
		"": 0, "SIG": 0, "0": 0, "-1": 0, "65": 0, "SIGRTMIN+31": 0, "SIGRTMIN3": 0, "SIGRTMIN+": 0, "SIGRTMIN-1": 0, "RTMAX+1": 0,
		"SIGFOO": 0, "TERM ": 0, "99999999999999999999": 0,
	} {
		got, err := ParseSignal(name)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v, want %d", name, got, err, want)
		}
	}
}

func TestSignalNamesParse(t *testing.T) {
	for n := 1; n <= 64; n++ {
		if got, err := ParseSignal(SignalName(n)); err != nil || got != n {
			t.Errorf("signal %d is named %q, which parses as %d, %v", n, SignalName(n), got, err)
		}
	}
}
