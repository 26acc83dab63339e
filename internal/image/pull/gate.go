package pull

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// reach is the part of the network that an address belongs to.
type reach int

// The order is that of trust: an endpoint may lead to addresses of its own reach
// and of lower ones.
const (
	reachPublic  reach = iota // the Internet
	reachPrivate              // this host, private networks, and all reserved addresses
	reachLink                 // the link of this host, and the metadata services of clouds
	reachUnknown
)

// reachOf returns the reach of a by the IANA IPv4 and IPv6 Special-Purpose Address
// Registries. An address of this host is private, whatever its network is.
func reachOf(a netip.Addr) reach {
	return reachFrom(a, hostAddresses())
}

// hostAddresses returns the addresses of this host's interfaces. It returns none if
// they cannot be read.
func hostAddresses() []netip.Addr {
	var out []netip.Addr
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}

// reachFrom is reachOf on a host with the addresses host.
func reachFrom(a netip.Addr, host []netip.Addr) reach {
	a = embeddedIPv4(a.WithZone("").Unmap())
	switch {
	case slices.Contains(host, a) && !contains(linkPrefixes(), a):
		return reachPrivate
	case contains(linkPrefixes(), a):
		return reachLink
	case a.Is4() && !contains(privatePrefixes(), a), a.Is6() && contains(publicPrefixes(), a) && !contains(privatePrefixes(), a):
		return reachPublic
	}
	return reachPrivate
}

// linkPrefixes returns the networks of links, and the addresses at which clouds
// give their credentials to every client.
func linkPrefixes() []netip.Prefix {
	return prefixes("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "fd20:ce::254/128", "100.100.100.200/32",
		"168.63.129.16/32", "192.0.0.192/32")
}

func privatePrefixes() []netip.Prefix {
	return prefixes("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.0.0.0/24",
		"192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
		"2001::/23", "2001:db8::/32", "3fff::/20")
}

// publicPrefixes returns the IPv6 addresses that are assigned to the Internet.
func publicPrefixes() []netip.Prefix { return prefixes("2000::/3") }

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, s := range texts {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// embeddedIPv4 returns the IPv4 address that a translator or a relay connects to
// for an IPv6 address: NAT64 (RFC 6052, section 2.1) and 6to4 (RFC 3056, section
// 2). It returns other addresses unchanged.
func embeddedIPv4(a netip.Addr) netip.Addr {
	b := a.As16()
	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(a):
		return netip.AddrFrom4([4]byte(b[12:16]))
	case netip.MustParsePrefix("2002::/16").Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return a
}

// gate sends the requests of one endpoint, also those to token servers and to
// storage that the endpoint names. It compares each address that it connects to
// with that of the endpoint: an endpoint on the Internet must not lead to this
// host, a private network or its link, whose services often trust every client. It
// judges addresses, not names, and only at the connect, because a name may resolve
// to another address at every look-up.
type gate struct {
	transport *http.Transport
	registry  string         // of the configuration, for errors
	host      string         // of the endpoint, with the port if any
	allow     []netip.Prefix // reachable in any case

	mu    sync.Mutex
	reach reach // of the endpoint: the lowest one of its connections
}

func newGate(host string, transport *http.Transport, registry string, allow []netip.Prefix) *gate {
	g := &gate{transport: transport, registry: registry, host: host, allow: allow, reach: reachUnknown}
	transport.DialContext = g.dial
	return g
}

// proxied is the key of a context value: the connection leads to a proxy.
type proxied struct{}

// RoundTrip implements http.RoundTripper.
func (g *gate) RoundTrip(req *http.Request) (*http.Response, error) {
	proxy, err := g.transport.Proxy(req)
	if err != nil {
		return nil, err
	}
	ctx := req.Context()
	if proxy != nil {
		if err := g.checkProxied(req.URL); err != nil {
			return nil, err
		}
		ctx = context.WithValue(ctx, proxied{}, true)
	}
	req = req.Clone(ctx)
	req.Header.Set("User-Agent", userAgent)
	return g.transport.RoundTrip(req)
}

// checkProxied judges a request that a proxy connects. Only the proxy knows the
// address of a name, so a name counts as one of the Internet.
func (g *gate) checkProxied(u *url.URL) error {
	isOwn := g.isOwn(serverOf(u))
	addr, _ := netip.ParseAddr(u.Hostname()) // not valid for a name
	switch {
	case isOwn && addr.IsValid():
		g.connected(reachOf(addr))
	case isOwn:
		g.connected(reachPublic)
	case addr.IsValid():
		return g.judge(u.Hostname(), addr)
	}
	return nil
}

// dial implements http.Transport's DialContext.
func (g *gate) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	if ctx.Value(proxied{}) != nil {
		return d.DialContext(ctx, network, address)
	}
	d.Control = func(_, ip string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(ip)
		if err != nil { // a URL without a host, which net takes for this one
			return g.refusal(address, ip)
		}
		return g.judge(hostname(address), to.Addr())
	}
	conn, err := d.DialContext(ctx, network, address)
	if err == nil && (g.isOwn("https://"+address) || g.isOwn("http://"+address)) {
		if to, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
			g.connected(reachOf(to.AddrPort().Addr()))
		}
	}
	return conn, err
}

// isOwn reports whether s, which has the form of serverOf, is the endpoint.
func (g *gate) isOwn(s string) bool {
	scheme, _, _ := strings.Cut(s, "://")
	return strings.ToLower(s) == serverOf(&url.URL{Scheme: scheme, Host: g.host})
}

// connected records a connection to the endpoint itself. If it is the first one on
// the Internet, earlier connections to other addresses are not used again.
func (g *gate) connected(to reach) {
	g.mu.Lock()
	lower := to < g.reach
	g.reach = min(g.reach, to)
	g.mu.Unlock()
	if lower {
		g.transport.CloseIdleConnections()
	}
}

// judge returns an *AddressError if the endpoint must not lead to addr. Before
// the first connection, which is to the endpoint itself, every address is fine.
func (g *gate) judge(name string, addr netip.Addr) error {
	g.mu.Lock()
	own := g.reach
	g.mu.Unlock()
	if reachOf(addr) <= own || contains(g.allow, addr.WithZone("").Unmap()) {
		return nil
	}
	return g.refusal(name, addr.WithZone("").String())
}

func (g *gate) refusal(name, address string) error {
	return &AddressError{Registry: g.registry, Endpoint: g.host, Host: name, Address: address}
}

// An AddressError reports that a registry leads to an address that it must not
// lead to.
type AddressError struct {
	Registry string // in the form of the configuration file
	Endpoint string // the registry or its mirror
	Host     string // the server that the endpoint named
	Address  string // of Host
}

func (e *AddressError) Error() string {
	name := printable(e.Host)
	if e.Host != e.Address {
		name += " at " + e.Address
	}
	return fmt.Sprintf("refuse to connect to %s: %s leads there, and is itself on another network", name, e.Endpoint)
}
