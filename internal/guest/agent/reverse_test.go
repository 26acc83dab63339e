package agent

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	sshagent "golang.org/x/crypto/ssh/agent"
)

// expectEcho sends text to an address and expects it back.
func expectEcho(t *testing.T, network, address, text string) {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer closeQuietly(conn)
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	if c, ok := conn.(duplex); ok {
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := io.ReadAll(conn); err != nil || string(got) != text {
		t.Errorf("%s: got %q, %v", address, got, err)
	}
}

// echo answers the connections of a listener with the data that they send.
func echo(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer closeQuietly(c)
			ignore(io.Copy(c, c))
		}()
	}
}

// TestReverseForwards listens in the machine for the client, until the client cancels
// it or disconnects.
func TestReverseForwards(t *testing.T) {
	c := readyMachine(t).login(t)
	path := filepath.Join(t.TempDir(), "s")
	tcp, err := c.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	unixSocket, err := c.ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	go echo(tcp)
	go echo(unixSocket)
	expectEcho(t, "tcp", tcp.Addr().String(), "over TCP")
	expectEcho(t, "unix", path, "over a socket")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v, want mode 0600", info, err)
	}
	if err := tcp.Close(); err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", tcp.Addr().String()); err == nil {
		closeQuietly(conn)
		t.Error("the port is open after its listener was cancelled")
	}
	// A connection that is idle ends with the client's.
	idle, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer closeQuietly(idle)
	if _, err := io.WriteString(idle, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(idle, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	closeQuietly(c)
	if _, err := idle.Read(make([]byte, 1)); err == nil {
		t.Error("a forwarded connection outlives the client's")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is left")
	}
}

// TestReverseRefuses checks requests that are refused.
func TestReverseRefuses(t *testing.T) {
	c := readyMachine(t).login(t)
	busy := echoListener(t, "tcp", "127.0.0.1:0")
	address, ok := busy.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("address %v", busy.Addr())
	}
	port := uint32(address.Port)
	for name, row := range map[string]struct {
		request string
		payload any
	}{
		"a port in use":       {requestTCP, tcpAddress{"127.0.0.1", port}},
		"a port out of range": {requestTCP, tcpAddress{"127.0.0.1", 1 << 16}},
		"no address":          {requestTCP, tcpAddress{"no such host.invalid", 0}},
		"no payload":          {requestTCP, struct{ Only uint32 }{1}},
		"a relative path":     {requestUnix, stringPayload{"s"}},
		"a folder":            {requestUnix, stringPayload{t.TempDir()}},
		"nothing to cancel":   {requestCancelTCP, tcpAddress{"127.0.0.1", port}},
		"no socket to cancel": {requestCancelUnix, stringPayload{"/s"}},
	} {
		if ok, _, err := c.SendRequest(row.request, true, ssh.Marshal(row.payload)); ok || err != nil {
			t.Errorf("%s: accepted %v, %v", name, ok, err)
		}
	}
	accepted := 0
	for range maxListeners + 1 {
		if l, err := c.Listen("tcp", "127.0.0.1:0"); err == nil {
			defer closeQuietly(l)
			accepted++
		}
	}
	if accepted != maxListeners {
		t.Errorf("%d listeners, want %d", accepted, maxListeners)
	}
}

// TestAgentForwarding checks that a session has the client's SSH agent if the client
// asks for it, that its socket belongs to the user alone, and that it is removed.
func TestAgentForwarding(t *testing.T) {
	c := readyMachine(t).login(t)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := sshagent.NewKeyring()
	if err := keys.Add(sshagent.AddedKey{PrivateKey: key, Comment: "the user's key"}); err != nil {
		t.Fatal(err)
	}
	if err := sshagent.ForwardToAgent(c, keys); err != nil {
		t.Fatal(err)
	}
	session, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := sshagent.RequestAgentForwarding(session); err != nil {
		t.Fatal(err)
	}
	in, err := session.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := session.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start("echo $SSH_AUTH_SOCK; cat"); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	path := strings.TrimSpace(line)
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder %v, %v, want mode 0700", info, err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := sshagent.NewClient(conn).List(); err != nil || len(got) != 1 || got[0].Comment != "the user's key" {
		t.Errorf("keys %v, %v", got, err)
	}
	closeQuietly(conn)
	closeQuietly(in)
	if err := session.Wait(); err != nil {
		t.Error(err)
	}
	plain, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := plain.Output("echo $SSH_AUTH_SOCK; ls -d " + filepath.Dir(path) + " 2>/dev/null || echo removed"); err != nil || string(got) != "\nremoved\n" {
		t.Errorf("a session without an agent: %q, %v", got, err)
	}
}

// TestOpenSSHReverse forwards a port of the machine with ssh -R.
func TestOpenSSHReverse(t *testing.T) {
	s := newOpenSSH(t, readyMachine(t))
	l := echoListener(t, "tcp", "127.0.0.1:0")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(free.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	closeQuietly(free)
	for _, bind := range []string{"", "localhost:", "127.0.0.1:"} {
		script := fmt.Sprintf("bash -c 'exec 3<>/dev/tcp/127.0.0.1/%s; echo hello >&3; head -1 <&3'", port)
		out, code := s.run(t, bytes.NewReader(nil), "ssh", "-o", "ExitOnForwardFailure=yes", "-R", bind+port+":"+l.Addr().String(), currentUser()+"@machine", script)
		if out != "hello\n" || code != 0 {
			t.Errorf("-R %s%s: got %q, %d", bind, port, out, code)
		}
	}
}
