package link

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func socketPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer closeQuietly(l)
	a, err = net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeQuietly(a); closeQuietly(b) })
	return a, b
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// serveEcho echoes the data of each stream of each session until the test ends.
func serveEcho(t *testing.T, p io.ReadWriteCloser) {
	t.Helper()
	l := Listen(p)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			s, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			all.Go(func() { echoSession(&all, s) })
		}
	})
	t.Cleanup(func() {
		closeQuietly(l)
		all.Wait()
	})
}

func echoSession(all *sync.WaitGroup, s *Session) {
	for {
		c, err := s.Accept()
		if err != nil {
			return
		}
		all.Go(func() {
			defer closeQuietly(c)
			ignore(io.Copy(c, c))
		})
	}
}

// checkEcho sends size random bytes and expects them back.
func checkEcho(t *testing.T, s *Session, size int) {
	t.Helper()
	c, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, size)
	rand.Read(want)
	go func() {
		ignore(c.Write(want))
		closeQuietly(c) // closes only the sending direction
	}()
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(got) != sha256.Sum256(want) {
		t.Fatalf("%d of %d bytes came back, or with other content", len(got), len(want))
	}
}

func TestEcho(t *testing.T) {
	p := newPort()
	serveEcho(t, p)
	s, err := Connect(testContext(t), p.attach(t))
	if err != nil {
		t.Fatal(err)
	}
	defer closeQuietly(s)
	var all sync.WaitGroup
	for _, size := range []int{1, 254, 255, 4096, 5 << 20} {
		all.Go(func() { checkEcho(t, s, size) })
	}
	all.Wait()
}

// A host that connects before the guest listens gets its session when the guest
// does.
func TestHostConnectsFirst(t *testing.T) {
	p := newPort()
	conn := p.attach(t)
	type result struct {
		s   *Session
		err error
	}
	done := make(chan result)
	go func() {
		s, err := Connect(testContext(t), conn)
		done <- result{s, err}
	}()
	// Several hellos are queued in the socket before the guest reads.
	time.AfterFunc(150*time.Millisecond, func() { serveEcho(t, p) })
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	defer closeQuietly(r.s)
	checkEcho(t, r.s, 1<<20)
}

func TestHostGivesUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	conn, guest := socketPair(t)
	if _, err := Connect(ctx, conn); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want the context's error", err)
	}
	if _, err := io.Copy(io.Discard, guest); err != nil {
		t.Fatal(err) // the copy ends because the connection is closed
	}
	conn, guest = socketPair(t)
	closeQuietly(guest)
	if _, err := Connect(testContext(t), conn); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want an error because the connection ended", err)
	}
}

// Ten hosts are cut off during a transfer in both directions, each at another
// point. The next host gets a session at once.
func TestReconnectInTransfer(t *testing.T) {
	p := newPort()
	serveEcho(t, p)
	rng := mathrand.New(mathrand.NewPCG(4, 2))
	var last *Session
	for range 10 {
		conn := p.attach(t)
		s, err := Connect(testContext(t), conn)
		if err != nil {
			t.Fatal(err)
		}
		checkEcho(t, s, 100<<10)
		c, err := s.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		go func() { ignore(io.Copy(c, endless{})) }()
		if _, err := io.CopyN(io.Discard, c, rng.Int64N(3<<20)); err != nil {
			t.Fatal(err)
		}
		closeQuietly(conn) // without a bye, as when a process is killed
		<-s.Done()
		last = s
	}
	if _, err := last.Open(t.Context()); err == nil {
		t.Error("a stream was opened in a session that has ended")
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return rand.Read(p) }

// A hello on the same connection ends the guest's previous session. Data that
// the old host still sends does not reach the new session.
func TestNewHostEndsOldSession(t *testing.T) {
	guest, conn := socketPair(t)
	l := Listen(guest)
	defer closeQuietly(l)
	first := rawHello(t, conn, id{1})
	old, err := l.Accept(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	second := rawHello(t, conn, id{2})
	now, err := l.Accept(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	<-old.Done()
	if _, err := conn.Write(dataFrame(first, []byte("\x00\x00garbage that ends a yamux session"))); err != nil {
		t.Fatal(err)
	}
	// A stream arrives in the new session.
	if _, err := conn.Write(dataFrame(second, muxFrame(1, muxSYN, 1, 0))); err != nil {
		t.Fatal(err)
	}
	if _, err := now.Accept(); err != nil {
		t.Error(err)
	}
	select {
	case <-now.Done():
		t.Error("the new session has ended")
	default:
	}
}

func dataFrame(session id, p []byte) []byte {
	return appendFrame(nil, frame{data, session, p}, new([]byte))
}

func rawHello(t *testing.T, w io.Writer, session id) id {
	t.Helper()
	if _, err := w.Write(appendFrame([]byte{0}, frame{hello, session, []byte(greeting)}, new([]byte))); err != nil {
		t.Fatal(err)
	}
	return session
}

// Data of a session that the guest does not know, for example after its agent
// was restarted, ends that session on the host.
func TestGuestLosesSession(t *testing.T) {
	guest, conn := socketPair(t)
	r := newReader(guest)
	go func() {
		f, err := r.next()
		if err != nil {
			return
		}
		ignore(guest.Write(appendFrame(nil, frame{welcome, f.id, []byte(greeting)}, new([]byte))))
	}()
	s, err := Connect(testContext(t), conn)
	if err != nil {
		t.Fatal(err)
	}
	defer closeQuietly(s)
	l := Listen(guest)
	defer closeQuietly(l)
	c, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ignore(c.Write([]byte("hello?")))
	<-s.Done()
}

func TestHostile(t *testing.T) {
	junk := make([]byte, 300<<10)
	rand.Read(junk)
	for _, row := range []struct {
		name string
		b    []byte
	}{
		{"random bytes", junk},
		{"zeros", make([]byte, 100<<10)},
		{"a long line without a zero", bytes.Repeat([]byte{0xff}, 1<<20)},
		{"half a data frame", dataFrame(id{9}, junk[:maxPayload])[:maxPayload/2]},
		{"half a hello", appendFrame(nil, frame{hello, id{9}, []byte(greeting)}, new([]byte))[:9]},
		{"a hello of another host", appendFrame(nil, frame{hello, id{9}, []byte(greeting)}, new([]byte))},
		{"a hello with a long payload", appendFrame(nil, frame{hello, id{9}, junk[:1000]}, new([]byte))},
		{"data of no session", dataFrame(id{9}, junk[:1000])},
		{"a yamux session's garbage", append(appendFrame(nil, frame{hello, id{9}, []byte(greeting)}, new([]byte)), dataFrame(id{9}, junk[:1000])...)},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newPort()
			serveEcho(t, p)
			conn := p.attach(t)
			go func() { ignore(io.Copy(io.Discard, conn)) }()
			if _, err := conn.Write(row.b); err != nil {
				t.Fatal(err)
			}
			closeQuietly(conn)
			s, err := Connect(testContext(t), p.attach(t))
			if err != nil {
				t.Fatal(err)
			}
			defer closeQuietly(s)
			checkEcho(t, s, 1<<20)
		})
	}
}

// The host skips garbage that the guest sent before the session.
func TestGarbageFromGuest(t *testing.T) {
	p := newPort()
	conn := p.attach(t)
	junk := make([]byte, 100<<10)
	rand.Read(junk)
	old := dataFrame(id{3}, junk[:maxPayload])
	go func() {
		ignore(p.Write(junk))
		ignore(p.Write(old[len(old)/2:]))
		ignore(p.Write(old[:len(old)/3]))
		serveEcho(t, p)
	}()
	s, err := Connect(testContext(t), conn)
	if err != nil {
		t.Fatal(err)
	}
	defer closeQuietly(s)
	checkEcho(t, s, 1<<20)
}

// Garbage after the welcome ends the host's session with a reason. It may have taken
// the place of a frame for which a stream would wait.
func TestGarbageInSession(t *testing.T) {
	junk := make([]byte, 64<<10)
	rand.Read(junk)
	for _, row := range []struct {
		name string
		b    []byte // after the welcome
		want string
	}{
		{"random bytes", slices.Concat(junk, []byte{0}), errGarbage.Error()},
		{"a long line without a zero", bytes.Repeat([]byte{0xff}, 1<<20), errGarbage.Error()},
		{"a short line", []byte("garbage\n\x00"), errGarbage.Error()},
		{"garbage for the multiplexer", dataFrame(id{7}, append([]byte{9}, make([]byte, 2*muxHeader)...)), "version"},
		{"a ping", dataFrame(id{7}, muxFrame(muxPing, muxSYN, 0, 1)), errPing.Error()},
		{"zeros, and the end", make([]byte, 100), ""},
		{"a bye", appendFrame(nil, frame{bye, id{7}, nil}, new([]byte)), ""},
		{"half a frame, and the end", dataFrame(id{7}, junk[:1000])[:500], ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			guest, conn := socketPair(t)
			done := make(chan struct{})
			go func() {
				defer close(done)
				f, err := newReader(guest).next()
				if err != nil {
					return
				}
				ignore(guest.Write(appendFrame(nil, frame{welcome, f.id, []byte(greeting)}, new([]byte))))
				// The rows have the ID 7 in place of the session's.
				ignore(guest.Write(replaceID(row.b, f.id)))
				if row.want == "" {
					closeQuietly(guest)
				}
			}()
			s, err := Connect(testContext(t), conn)
			if err != nil {
				t.Fatal(err)
			}
			defer closeQuietly(s)
			select {
			case <-s.Done():
			case <-testContext(t).Done():
				t.Fatal("the session has not ended")
			}
			<-done
			err = s.Violation()
			if (err == nil) != (row.want == "") || err != nil && !strings.Contains(strings.ToLower(err.Error()), row.want) {
				t.Errorf("violation %v, want %q", err, row.want)
			}
		})
	}
}

// replaceID returns b with the ID of its frame replaced, if it is a whole frame.
func replaceID(b []byte, session id) []byte {
	f, ok := parse(bytes.Clone(bytes.TrimSuffix(b, []byte{0})))
	if !ok || f.id != (id{7}) {
		return b
	}
	return appendFrame(nil, frame{f.kind, session, f.payload}, new([]byte))
}

func TestOtherVersion(t *testing.T) {
	guest, conn := socketPair(t)
	go func() {
		r := newReader(guest)
		f, err := r.next()
		if err != nil {
			return
		}
		later := []byte(greeting)
		later[len(later)-1]++
		ignore(guest.Write(appendFrame(nil, frame{welcome, f.id, later}, new([]byte))))
	}()
	_, err := Connect(testContext(t), conn)
	var version *VersionError
	if !errors.As(err, &version) || version.Guest != 2 || version.Host != 1 {
		t.Fatalf("got %v, want a VersionError", err)
	}
}

// sessionPair returns both ends of a session.
func sessionPair(t *testing.T) (host, guest *Session) {
	t.Helper()
	p := newPort()
	l := Listen(p)
	t.Cleanup(func() { closeQuietly(l) })
	host, err := Connect(testContext(t), p.attach(t))
	if err != nil {
		t.Fatal(err)
	}
	if guest, err = l.Accept(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return host, guest
}

// Close on the host ends the guest's session although the port stays open.
func TestCloseEndsGuestSession(t *testing.T) {
	s, theirs := sessionPair(t)
	closeQuietly(s)
	<-theirs.Done()
	if _, err := theirs.Accept(); err == nil {
		t.Error("a stream arrived in a session that has ended")
	}
}

// Close on the guest ends the host's session.
func TestGuestCloseEndsHostSession(t *testing.T) {
	s, theirs := sessionPair(t)
	closeQuietly(theirs)
	<-s.Done()
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x02\x01"), []byte{1, 2, 0, 3})
	f.Add(bytes.Repeat([]byte{1}, 254), bytes.Repeat([]byte{0}, 300))
	f.Add(dataFrame(id{1, 0, 2}, bytes.Repeat([]byte{7}, 508))[:300], bytes.Repeat([]byte{9}, 254-headerSize))
	f.Fuzz(func(t *testing.T, before, payload []byte) {
		payload = payload[:min(len(payload), maxPayload)]
		if len(payload) == 0 {
			return
		}
		want := frame{data, id{5, 0, 0, 1, 255, 0, 7, 0}, payload}
		wire := appendFrame(append(bytes.Clone(before), 0), want, new([]byte))
		if bytes.IndexByte(wire[len(before)+1:], 0) != len(wire)-len(before)-2 {
			t.Fatal("a zero inside a frame")
		}
		if len(wire)-len(before)-1 > maxEncoded {
			t.Fatal("a frame is longer than it may be")
		}
		r := newReader(bytes.NewReader(wire))
		var got frame
		for {
			f, err := r.next()
			if err != nil {
				break
			}
			got = frame{f.kind, f.id, bytes.Clone(f.payload)}
		}
		if got.kind != want.kind || got.id != want.id || !bytes.Equal(got.payload, payload) {
			t.Fatalf("read %d bytes of kind %d, want %d of kind %d", len(got.payload), got.kind, len(payload), data)
		}
	})
}

// ignore discards results that the test checks in another way.
func ignore(...any) {}

// closeQuietly closes a connection whose Close error does not matter.
func closeQuietly(c io.Closer) { c.Close() }
