package unixsocket

import (
	"io"
	"sync"
)

// Join copies bytes between a client and a server until both directions have ended,
// and closes both. At the end of the client's bytes the server may still answer: Join
// ends only that direction, if the connection can (CloseWrite), and else closes the
// server. At the end of the server's bytes Join closes the client, since nothing
// answers it any more.
func Join(client, server io.ReadWriteCloser) {
	var requests sync.WaitGroup
	requests.Go(func() {
		_, err := io.Copy(server, client)
		half, ok := server.(interface{ CloseWrite() error })
		if err != nil || !ok || half.CloseWrite() != nil {
			server.Close()
		}
	})
	_, _ = io.Copy(client, server) // an error ends the connection as its end does
	client.Close()
	requests.Wait()
	server.Close()
}
