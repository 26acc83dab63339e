package pull

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestReachOfAddresses(t *testing.T) {
	for text, want := range map[string]reach{
		"8.8.8.8": reachPublic, "2606:4700::1111": reachPublic, "::ffff:8.8.8.8": reachPublic, "64:ff9b::8.8.8.8": reachPublic,
		"127.0.0.1": reachPrivate, "127.9.9.9": reachPrivate, "::1": reachPrivate, "0.0.0.0": reachPrivate, "::": reachPrivate,
		"0.1.2.3": reachPrivate, "10.0.0.1": reachPrivate, "172.16.0.1": reachPrivate, "172.32.0.1": reachPublic,
		"192.168.1.1": reachPrivate, "100.64.0.1": reachPrivate, "198.18.0.1": reachPrivate, "224.0.0.1": reachPrivate,
		"255.255.255.255": reachPrivate, "fc00::1": reachPrivate, "fd12::1": reachPrivate, "ff02::1": reachPrivate,
		"::ffff:127.0.0.1": reachPrivate, "::ffff:10.0.0.1": reachPrivate, "::127.0.0.1": reachPrivate,
		"64:ff9b::127.0.0.1": reachPrivate, "64:ff9b::10.1.1.1": reachPrivate, "64:ff9b:1::7f00:1": reachPrivate,
		"2002:7f00:1::": reachPrivate, "2002:c0a8:101::1": reachPrivate, "2002:808:808::": reachPublic,
		"2001:0:1:2::": reachPrivate, "2001:db8::1": reachPrivate, "fec0::1": reachPrivate, "100::1": reachPrivate,
		"169.254.169.254": reachLink, "::ffff:169.254.169.254": reachLink, "64:ff9b::a9fe:a9fe": reachLink,
		"2002:a9fe:a9fe::": reachLink, "fe80::1": reachLink, "fe80::1%eth0": reachLink, "fd00:ec2::254": reachLink,
		"fd20:ce::254": reachLink, "100.100.100.200": reachLink, "168.63.129.16": reachLink, "192.0.0.192": reachLink,
	} {
		if got := reachFrom(netip.MustParseAddr(text), nil); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
	host := []netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("2606:4700::1111"), netip.MustParseAddr("fe80::1")}
	for text, want := range map[string]reach{
		"8.8.8.8": reachPrivate, "::ffff:8.8.8.8": reachPrivate, "64:ff9b::8.8.8.8": reachPrivate, "8.8.8.9": reachPublic,
		"2606:4700::1111": reachPrivate, "2606:4700::1112": reachPublic, "fe80::1": reachLink,
	} {
		if got := reachFrom(netip.MustParseAddr(text), host); got != want {
			t.Errorf("on a host with that address: %s: %d, want %d", text, got, want)
		}
	}
	if !slices.Contains(hostAddresses(), netip.MustParseAddr("127.0.0.1")) {
		t.Errorf("addresses of this host: %v", hostAddresses())
	}
}

// listenAt starts a server at an address of this host. It counts its requests.
func listenAt(t *testing.T, ip string, h http.HandlerFunc) (s *httptest.Server, count *int) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Skip(err) // this host has no IPv6
	}
	n := 0
	s = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		h(w, r)
	}))
	if err := s.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return s, &n
}

func testGate(host string, r reach, allow ...netip.Prefix) *gate {
	g := newGate(host, newTransport(&tls.Config{MinVersion: tls.VersionTLS12}, defaultTimeout), "r.io", allow)
	g.reach = r
	return g
}

func (g *gate) get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: g, CheckRedirect: checkRedirect}).Do(req)
	if err == nil {
		err = resp.Body.Close()
	}
	return err
}

// TestGateJudgesTheAddress connects to this host in the name of registries on each
// kind of network.
func TestGateJudgesTheAddress(t *testing.T) {
	for _, row := range []struct {
		listen, host string // to connect to, without the port
		own          reach
		refused      bool
	}{
		{"127.0.0.1", "127.0.0.1", reachPublic, true},
		{"127.0.0.1", "localhost", reachPublic, true}, // a name that resolves to this host
		{"127.0.0.1", "0.0.0.0", reachPublic, true},
		{"127.0.0.1", "[::ffff:127.0.0.1]", reachPublic, true},
		{"127.0.0.1", "", reachPublic, true},
		{"::1", "[::1]", reachPublic, true},
		{"127.0.0.1", "localhost", reachPrivate, false},
		{"127.0.0.1", "0.0.0.0", reachPrivate, false},
		{"127.0.0.1", "127.0.0.1", reachLink, false},
	} {
		t.Run(fmt.Sprint(row.host, row.own), func(t *testing.T) {
			s, count := listenAt(t, row.listen, func(http.ResponseWriter, *http.Request) {})
			_, port, err := net.SplitHostPort(s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			g := testGate("r.io", row.own)
			err = classify(g.get(t.Context(), "http://"+row.host+":"+port+"/"))
			e, refused := errors.AsType[*AddressError](err)
			if refused != row.refused || !refused && err != nil || refused == (*count > 0) {
				t.Errorf("error %v, %d requests", err, *count)
			}
			if refused && (e.Registry != "r.io" || e.Address == "" || errors.Is(err, ErrNetwork)) {
				t.Errorf("error %#v", e)
			}
			retry := &retrier{retries: 5, retryDial: true}
			if refused && retry.isRetryable(err) {
				t.Error("the refusal would be tried again")
			}
		})
	}
	t.Run("metadata of a cloud from a private registry", func(t *testing.T) {
		err := classify(testGate("10.0.0.1:5000", reachPrivate).get(t.Context(), "http://169.254.169.254/latest/"))
		if _, ok := errors.AsType[*AddressError](err); !ok {
			t.Errorf("error %v", err)
		}
	})
}

// TestGateAllowsListedAddresses has the registry at 127.0.0.2, and a list that names
// one address.
func TestGateAllowsListedAddresses(t *testing.T) {
	allowed, _ := listenAt(t, "127.0.0.2", func(http.ResponseWriter, *http.Request) {})
	other, count := listenAt(t, "127.0.0.3", func(http.ResponseWriter, *http.Request) {})
	g := testGate("r.io", reachPublic, netip.MustParsePrefix("127.0.0.2/32"))
	if err := g.get(t.Context(), allowed.URL); err != nil {
		t.Error(err)
	}
	if err := g.get(t.Context(), other.URL); err == nil || *count > 0 {
		t.Errorf("error %v, %d requests", err, *count)
	}
}

// TestGateFollowsTheEndpointsAddress connects to the endpoint itself.
func TestGateFollowsTheEndpointsAddress(t *testing.T) {
	s, count := listenAt(t, "127.0.0.1", func(http.ResponseWriter, *http.Request) {})
	other, _ := listenAt(t, "127.0.0.2", func(http.ResponseWriter, *http.Request) {})
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	g := testGate("localhost:"+port, reachUnknown)
	if err := g.get(t.Context(), "http://LOCALHOST:"+port+"/"); err != nil || g.reach != reachPrivate {
		t.Fatalf("reach %d, %v", g.reach, err)
	}
	if err := g.get(t.Context(), other.URL); err != nil {
		t.Errorf("a private registry leads to a private address: %v", err)
	}
	// DNS rebinding: the registry was on the Internet before, its name leads here now.
	g.connected(reachPublic)
	before := *count
	if err := g.get(t.Context(), "http://localhost:"+port+"/"); err == nil || *count != before {
		t.Errorf("error %v, %d requests", err, *count-before)
	}
	// And so do the connections that it was allowed before.
	if err := g.get(t.Context(), other.URL); err == nil {
		t.Error("an old connection was used again")
	}
}

// TestGateBehindAProxy connects by a proxy on this host, which is the user's choice.
func TestGateBehindAProxy(t *testing.T) {
	proxy, count := listenAt(t, "127.0.0.1", func(http.ResponseWriter, *http.Request) {})
	proxyURL, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		endpoint, target string
		refused          bool
	}{
		{"r.io", "http://r.io/v2/", false},
		{"r.io", "http://storage.example/", false}, // only the proxy knows its address
		{"r.io", "http://10.0.0.1/", true},
		{"r.io", "http://[::ffff:169.254.169.254]/", true},
		{"r.io", "http://8.8.8.8/", false},
		{"10.0.0.1:5000", "http://10.0.0.2/", false},
		{"10.0.0.1:5000", "http://169.254.169.254/", true},
	} {
		g := testGate(row.endpoint, reachUnknown)
		g.transport.Proxy = http.ProxyURL(proxyURL)
		if err := g.get(t.Context(), "http://"+row.endpoint+"/v2/"); err != nil {
			t.Error(err)
		}
		before := *count
		err := g.get(t.Context(), row.target)
		if (err != nil) != row.refused || row.refused != (*count == before) {
			t.Errorf("%s to %s: %v", row.endpoint, row.target, err)
		}
	}
	// The proxy is no way around: a direct request to its address is judged.
	g := testGate("r.io", reachPublic)
	if err := g.get(t.Context(), proxy.URL); err == nil {
		t.Error("a registry led to the proxy itself")
	}
}

// TestCredentialsOfARegistryOnTheInternet has a registry whose challenge names a
// token server by a name that resolves to this host.
func TestCredentialsOfARegistryOnTheInternet(t *testing.T) {
	tokens, count := listenAt(t, "127.0.0.1", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"token":"T"}`) })
	_, port, err := net.SplitHostPort(tokens.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, _ := listenAt(t, "127.0.0.2", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://localhost:%s/token"`, port))
		w.WriteHeader(http.StatusUnauthorized)
	})
	o := testOptions(t)
	o.AllowAddresses = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
	ref, err := parseReference(s.Listener.Addr().String() + "/app:1")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(os.Getenv("HOME"), ".docker/config.json"),
		`{"auths":{"`+s.Listener.Addr().String()+`":{"auth":"`+base64Of("u:pw")+`"}}}`, 0o600)
	o.PlainHTTP = true
	r, err := newRegistry(ref.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	r.endpoints[0].gate.reach = reachPublic
	_, _, err = r.manifest(t.Context(), "1")
	expectError(t, err, "get token from localhost:"+port, "127.0.0.1", "refuse to connect")
	if *count > 0 || strings.Contains(err.Error(), "network error") {
		t.Errorf("%d requests, error %v", *count, err)
	}
	r.endpoints[0].gate.reach = reachPrivate
	if _, _, err = r.manifest(t.Context(), "1"); err == nil || *count == 0 {
		t.Errorf("%d requests, error %v", *count, err)
	}
}
