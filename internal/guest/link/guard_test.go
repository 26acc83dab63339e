package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"testing"
)

// muxFrame returns the header of a frame of the multiplexer.
func muxFrame(kind byte, flags uint16, stream, length uint32) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0, kind}, flags)
	b = binary.BigEndian.AppendUint32(b, stream)
	return binary.BigEndian.AppendUint32(b, length)
}

// floodHost connects a host to a guest that sends a welcome and then 1 MiB of
// frames from next, which gets increasing even stream numbers. The guest reads
// none of the host's answers.
func floodHost(t *testing.T, next func(stream uint32) []byte) (s *Session, sent chan struct{}) {
	t.Helper()
	host, port := net.Pipe() // without a buffer, so that even the bye blocks
	sent = make(chan struct{})
	go func() {
		defer close(sent)
		f, err := newReader(port).next()
		if err != nil {
			return
		}
		ignore(port.Write(appendFrame(nil, frame{welcome, f.id, []byte(greeting)}, new([]byte))))
		var many []byte
		for stream := uint32(2); len(many) < 1<<20; stream += 2 {
			many = append(many, next(stream)...)
		}
		var frames []byte
		for payload := range slices.Chunk(many, maxPayload) {
			frames = append(frames, dataFrame(f.id, payload)...)
		}
		ignore(port.Write(frames))
	}()
	t.Cleanup(func() { closeQuietly(port); <-sent })
	s, err := Connect(testContext(t), host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeQuietly(s) })
	return s, sent
}

// A guest that makes the multiplexer answer and does not read the answers loses
// its session. It leaves no goroutines behind on the host.
func TestHostileGuest(t *testing.T) {
	for _, row := range []struct {
		name string
		next func(stream uint32) []byte
	}{
		{"pings", func(n uint32) []byte { return muxFrame(muxPing, muxSYN, 0, n) }},
		{"answers without a ping", func(n uint32) []byte { return muxFrame(muxPing, 2, 0, n) }},
		{"pings after data", func(n uint32) []byte {
			return slices.Concat(muxFrame(muxData, 0, n, 12), make([]byte, 12), muxFrame(muxPing, muxSYN, 0, n))
		}},
		{"streams by window updates", func(n uint32) []byte { return muxFrame(1, muxSYN, n, 0) }},
		{"streams by data", func(n uint32) []byte { return append(muxFrame(muxData, muxSYN, n, 1), 'x') }},
		{"streams that are acknowledged too", func(n uint32) []byte { return muxFrame(1, muxSYN|2, n, 0) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			s, sent := floodHost(t, row.next)
			select {
			case <-s.Done():
			case <-testContext(t).Done():
				t.Fatalf("the session has not ended, with %d more goroutines", runtime.NumGoroutine()-before)
			}
			<-sent // all was sent, or the connection is closed
			if err := s.Violation(); err == nil {
				t.Error("the session has ended without a reason")
			}
			if more := runtime.NumGoroutine() - before; more > 50 {
				t.Errorf("%d more goroutines than before", more)
			}
		})
	}
}

// The guard accepts frames that need no answer, however they are cut, and does
// not interpret the payload of a data frame as a header.
func TestGuard(t *testing.T) {
	ping := muxFrame(muxPing, muxSYN, 0, 7)
	var fine []byte
	fine = append(fine, muxFrame(1, 2, 1, 0)...)
	fine = append(append(fine, muxFrame(muxData, 0, 1, 24)...), append(bytes.Clone(ping), ping...)...)
	fine = append(fine, muxFrame(1, 0, 1, 0xffffffff)...) // a window update has no data
	fine = append(fine, muxFrame(muxData, 4, 1, 0)...)
	fine = append(fine, muxFrame(3, 0, 0, 0)...)
	for size := 1; size <= len(fine); size++ {
		g := guard{noStreams: true}
		for r := bytes.NewReader(fine); r.Len() > 0; {
			p := make([]byte, size)
			n, err := r.Read(p)
			if err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			if err := g.check(p[:n]); err != nil {
				t.Fatalf("in pieces of %d bytes: %v", size, err)
			}
		}
		if err := g.check(ping); !errors.Is(err, errPing) {
			t.Fatalf("in pieces of %d bytes: then a ping: got %v", size, err)
		}
	}
	syn := muxFrame(1, muxSYN, 1, 0)
	if err := (&guard{noStreams: true}).check(syn); !errors.Is(err, errSYN) {
		t.Errorf("a stream from the guest: got %v", err)
	}
	if err := (&guard{}).check(syn); err != nil {
		t.Errorf("a stream from the host: got %v", err)
	}
}
