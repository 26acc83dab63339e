package pull

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
)

// defaultSocket is the default address of dockerd.
const defaultSocket = "/var/run/docker.sock"

// resolveDaemon requests a docker save archive from a Docker daemon (Docker
// Engine API, ImageGet), and resolves the image in it.
func resolveDaemon(ctx context.Context, s source, want platform, o Options) (*Image, error) {
	socket, err := daemonSocket(os.Getenv("DOCKER_HOST"))
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", socket)
		},
		MaxResponseHeaderBytes: maxHeaderBytes,
		DisableCompression:     true,
	}
	defer transport.CloseIdleConnections()
	// The host name is only for the Host header.
	target := url.URL{Scheme: "http", Host: "docker", Path: path.Join("/images", s.tag, "get")}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", userAgent)
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask Docker daemon at %s: %w", socket, daemonError(ctx, err))
	}
	if err := checkStatus(resp, http.StatusOK); resp.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("%w: %w", ErrNoImage, err)
	} else if err != nil {
		return nil, classify(err)
	}
	defer resp.Body.Close()
	a, err := spoolArchive(ctx, resp.Body, o)
	if err != nil {
		return nil, daemonError(ctx, err)
	}
	// The archive has one image, but may have all of its tags.
	s.path, s.tag = s.tag, ""
	img, err := a.dockerImage(s, want, o)
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	if n := CanonicalName(s.path); n != "" && !strings.HasPrefix(s.path, "sha256:") {
		img.Name = n
	}
	return img, nil
}

// daemonError returns the cause of err without the URL and the address, which the
// caller adds. If ctx has ended, it returns the context's error.
func daemonError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e.Err
	}
	return err
}

// daemonSocket returns the path of the socket in host, the value of DOCKER_HOST.
func daemonSocket(host string) (string, error) {
	if host == "" {
		return defaultSocket, nil
	}
	socket, ok := strings.CutPrefix(host, "unix://")
	if !ok || socket == "" {
		return "", fmt.Errorf("DOCKER_HOST is %s, only unix:// is supported", printable(host))
	}
	return socket, nil
}
