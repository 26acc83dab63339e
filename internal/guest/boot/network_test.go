package boot

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/guest"
)

// ownNetwork moves the test to a new network namespace. The thread stays locked
// to the test's goroutine and ends with it.
func ownNetwork(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root makes a network namespace here")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

func ip(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %q: %v: %s", args, err, out)
	}
	return string(out)
}

func TestSetUpNetwork(t *testing.T) {
	ownNetwork(t)
	ip(t, "link", "add", "eth7", "type", "veth", "peer", "name", "host7")
	ip(t, "link", "set", "host7", "up")
	n := guest.Network{Device: "eth7", Address: "10.9.8.7/20", Gateway: "10.9.0.1"}
	if err := setUpNetwork(&n); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		want string
		args []string
	}{
		{"inet 127.0.0.1/8 scope host lo", []string{"-o", "-4", "addr", "show", "dev", "lo"}},
		{"inet 10.9.8.7/20 brd 10.9.15.255", []string{"-o", "-4", "addr", "show", "dev", "eth7"}},
		{",UP,", []string{"-o", "link", "show", "dev", "eth7"}},
		{"default via 10.9.0.1 dev eth7", []string{"-4", "route"}},
		{"10.9.0.0/20 dev eth7", []string{"-4", "route"}},
	} {
		if got := ip(t, row.args...); !strings.Contains(got, row.want) {
			t.Errorf("ip %s: no %q in\n%s", strings.Join(row.args, " "), row.want, got)
		}
	}
}

func TestSetUpNetworkWithoutDevice(t *testing.T) {
	ownNetwork(t)
	if err := setUpNetwork(&guest.Network{}); err != nil {
		t.Fatal(err)
	}
	if got := ip(t, "-o", "-4", "addr"); !strings.Contains(got, "127.0.0.1/8") {
		t.Errorf("lo has no address: %s", got)
	}
	err := setUpNetwork(&guest.Network{Device: "eth9", Address: "10.0.0.1/8"})
	if !errors.Is(err, unix.ENODEV) || !strings.Contains(err.Error(), "eth9") {
		t.Errorf("a missing device: %v", err)
	}
	err = setUpNetwork(&guest.Network{Device: "lo", Gateway: "192.0.2.1"})
	if !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("an unreachable gateway: %v", err)
	}
}
