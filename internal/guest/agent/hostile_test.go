package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/client"
)

// login logs in with golang.org/x/crypto/ssh directly, so that a test can send
// requests that banger's client does not.
func (m *machine) login(t *testing.T) *ssh.Client {
	t.Helper()
	signer, err := ssh.ParsePrivateKey([]byte(m.keys.ClientPrivate))
	if err != nil {
		t.Fatal(err)
	}
	conn, channels, requests, err := ssh.NewClientConn(m.stream(t), "", &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		t.Fatal(err)
	}
	c := ssh.NewClient(conn, channels, requests)
	t.Cleanup(func() { closeQuietly(c) })
	return c
}

// mustServe checks that the agent still serves other clients.
func (m *machine) mustServe(t *testing.T) {
	t.Helper()
	if out, errs, _ := run(t, m.client(t), sh("echo fine"), nil); out != "fine\n" {
		t.Errorf("after the attack: %q, %q", out, errs)
	}
}

func TestAuthentication(t *testing.T) {
	m := readyMachine(t)
	other, err := client.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	stranger := m.keys
	stranger.ClientPrivate = other.ClientPrivate
	if _, err := client.New(testContext(t), m.stream(t), stranger); err == nil {
		t.Error("logged in with an unknown key")
	}
	impostor := m.keys
	impostor.HostPublic = other.HostPublic
	if _, err := client.New(testContext(t), m.stream(t), impostor); err == nil {
		t.Error("another machine's key was accepted")
	}
	for name, auth := range map[string][]ssh.AuthMethod{
		"none": nil, "password": {ssh.Password("")},
		"keyboard": {ssh.KeyboardInteractive(func(string, string, []string, []bool) ([]string, error) { return nil, nil })},
	} {
		if _, _, _, err := ssh.NewClientConn(m.stream(t), "", &ssh.ClientConfig{
			User: "root", Auth: auth, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
		}); err == nil {
			t.Errorf("logged in with %s", name)
		}
	}
	m.mustServe(t)
}

func TestGarbageInsteadOfSSH(t *testing.T) {
	m := readyMachine(t)
	junk := make([]byte, 64<<10)
	rand.Read(junk)
	for name, b := range map[string][]byte{
		"random": junk, "nothing": nil, "zeros": make([]byte, 64<<10),
		"a version and junk":  append([]byte("SSH-2.0-x\r\n"), junk...),
		"a long version line": bytes.Repeat([]byte("SSH-2.0-"), 8<<10),
		"a huge packet":       []byte("SSH-2.0-x\r\n\xff\xff\xff\xff\x00\x14"),
	} {
		stream := m.stream(t)
		ignore(stream.Write(b))
		closeQuietly(stream)
		ignore(stream.SetReadDeadline(time.Now().Add(20 * time.Second)))
		if _, err := io.Copy(io.Discard, stream); err != nil {
			t.Errorf("%s: the agent keeps the stream open: %v", name, err)
		}
	}
	m.mustServe(t)
}

func TestBadRequests(t *testing.T) {
	m := readyMachine(t)
	c := m.login(t)
	json := func(s string) []byte { return ssh.Marshal(stringPayload{s}) }
	huge := `{"args":["true"],"env":["A=` + strings.Repeat("x", 200<<10) + `"]}`
	for _, row := range []struct {
		name, request string
		payload       []byte
	}{
		{"no string", guest.RequestExec, []byte{1, 2}},
		{"a string that is too long", guest.RequestExec, []byte{0xff, 0xff, 0xff, 0xff, 'x'}},
		{"no JSON", guest.RequestExec, json("args")},
		{"JSON of another shape", guest.RequestExec, json(`{"args":"true"}`)},
		{"two objects", guest.RequestExec, json(`{"args":["true"]}{}`)},
		{"cut off", guest.RequestExec, json(huge[:len(huge)-2])},
		{"deep", guest.RequestExec, json(strings.Repeat("[", 100<<10))},
		{"zero in a shell command", "exec", json("true\x00false")},
		{"unknown subsystem", "subsystem", json("netconf")},
		{"unknown request", "x11-req", nil},
		{"signal of no name", "signal", json("NOTHING")},
		{"variable without a name", "env", ssh.Marshal(struct{ A, B string }{"", "x"})},
		{"variable with =", "env", ssh.Marshal(struct{ A, B string }{"A=B", "x"})},
		{"window without a terminal", "window-change", ssh.Marshal(windowChange{80, 24, 0, 0})},
		{"terminal cut off", "pty-req", json("vt100")},
	} {
		t.Run(row.name, func(t *testing.T) {
			ch, requests, err := c.OpenChannel("session", nil)
			if err != nil {
				t.Fatal(err)
			}
			go ssh.DiscardRequests(requests)
			if ok, err := ch.SendRequest(row.request, true, row.payload); ok || err != nil {
				t.Errorf("answer %v, %v, want a refusal", ok, err)
			}
			closeQuietly(ch)
		})
	}
	for _, name := range []string{guest.RequestPowerOff, guest.RequestClock, "nothing@banger"} {
		if ok, reason, err := c.SendRequest(name, true, json("[")); ok || err != nil || len(reason) == 0 {
			t.Errorf("%s: %v, %q, %v, want a refusal", name, ok, reason, err)
		}
	}
	if _, _, err := c.OpenChannel("x11", nil); err == nil {
		t.Error("a channel of an unknown type was opened")
	}
	for _, payload := range [][]byte{nil, {0, 0, 0, 9, 'x'}, ssh.Marshal(struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}{"127.0.0.1", 1 << 20, "", 0})} {
		if _, _, err := c.OpenChannel("direct-tcpip", payload); err == nil {
			t.Errorf("a forward to %q was opened", payload)
		}
	}
	m.mustServe(t)
}

func TestLimits(t *testing.T) {
	m := readyMachine(t)
	c := m.login(t)
	var refused *ssh.OpenChannelError
	for i := range maxChannels + 1 {
		_, requests, err := c.OpenChannel("session", nil)
		if i < maxChannels && err != nil || i == maxChannels && (!errors.As(err, &refused) || refused.Reason != ssh.ResourceShortage) {
			t.Fatalf("channel %d: %v", i, err)
		}
		if err == nil {
			go ssh.DiscardRequests(requests)
		}
	}
	closeQuietly(c)
	c = m.login(t)
	ch, requests, err := c.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	accepted := 0
	for range maxEnv + 10 {
		ok, err := ch.SendRequest("env", true, ssh.Marshal(struct{ A, B string }{"NAME", strings.Repeat("x", 100)}))
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			accepted++
		}
	}
	if accepted != maxEnv {
		t.Errorf("%d variables were accepted, want %d", accepted, maxEnv)
	}
	for i := range maxConnections + 1 {
		stream := m.stream(t)
		ignore(stream.SetReadDeadline(time.Now().Add(20 * time.Second)))
		n, err := stream.Read(make([]byte, 1))
		if n == 0 {
			if i < maxConnections-2 {
				t.Errorf("connection %d: %v", i, err)
			}
			return // refused, as expected
		}
	}
	t.Errorf("%d connections were served", maxConnections+1)
}

func TestClockIsRefused(t *testing.T) {
	if err := readyMachine(t).client(t).SetClock(testContext(t), time.Unix(0, -1)); err == nil {
		t.Error("the clock was set to before 1970")
	}
}

func TestPortAppears(t *testing.T) {
	dir := t.TempDir()
	ports, devices := filepath.Join(dir, "ports"), filepath.Join(dir, "dev")
	write := func(port, name string) {
		t.Helper()
		if err := errors.Join(
			os.MkdirAll(filepath.Join(ports, port), 0o755),
			os.WriteFile(filepath.Join(ports, port, "name"), []byte(name+"\n"), 0o600),
		); err != nil {
			t.Fatal(err)
		}
	}
	type result struct {
		p   *port
		err error
	}
	opened := make(chan result)
	go func() {
		p, err := openPort(testContext(t), ports, devices)
		opened <- result{p, err}
	}()
	write("vport0p0", "org.qemu.other")
	write("vport1p3", guest.AgentPort)
	if err := errors.Join(os.Mkdir(devices, 0o755), unix.Mkfifo(filepath.Join(devices, "vport1p3"), 0o600)); err != nil {
		t.Fatal(err)
	}
	r := <-opened
	if r.err != nil {
		t.Fatal(r.err)
	}
	defer r.p.Close()
	// A FIFO returns the bytes that are written to it.
	if _, err := r.p.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 9)
	if n, err := r.p.Read(b); string(b[:n]) != "hello" || err != nil {
		t.Errorf("read %q, %v", b[:n], err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := openPort(ctx, filepath.Join(dir, "none"), devices); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a port: %v", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	keys, err := client.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	good := guest.Config{Version: guest.Version, HostKey: keys.HostPrivate, ClientKeys: []string{keys.ClientPublic}}
	for name, change := range map[string]func(*guest.Config){
		"version":    func(c *guest.Config) { c.Version++ },
		"host key":   func(c *guest.Config) { c.HostKey = "x" },
		"client key": func(c *guest.Config) { c.ClientKeys = []string{"x"} },
	} {
		config := good
		change(&config)
		if _, err := newAgent(Options{Config: config}); err == nil {
			t.Errorf("a bad %s was accepted", name)
		}
	}
	if _, err := newAgent(Options{Config: good}); err != nil {
		t.Error(err)
	}
}

func TestCiphers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cpuinfo")
	for content, want := range map[string]string{
		"model name\t: QEMU TCG CPU version 2.5+\nflags\t\t: aes\n": ssh.CipherChaCha20Poly1305,
		"model name\t: Some Processor\n":                            ssh.CipherAES128GCM,
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := ciphers(file); got[0] != want {
			t.Errorf("%q: %q first, want %q", content, got, want)
		}
	}
}
