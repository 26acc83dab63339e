package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/guest"
)

// setNames gives the machine its name, and the image's programs the files in
// which they look for names. The image's own files stay as they are under
// bind mounts, as docker does it.
func (m *machine) setNames() error {
	c := m.config
	if err := unix.Sethostname([]byte(c.Hostname)); err != nil {
		return fmt.Errorf("set hostname: %w", err)
	}
	files := [][2]string{
		{"/etc/hostname", c.Hostname + "\n"},
		{"/etc/hosts", hosts(c.Hostname, c.Network.Address)},
	}
	if len(c.Network.DNS) > 0 {
		files = append(files, [2]string{"/etc/resolv.conf", resolvConf(&c.Network)})
	}
	dir, err := m.ownDir("etc")
	if err != nil {
		return fmt.Errorf("set names: %w", err)
	}
	for _, f := range files {
		source := path.Join(dir, path.Base(f[0]))
		if err := os.WriteFile(source, []byte(f[1]), 0o644); err != nil {
			return fmt.Errorf("set names: %w", err)
		}
		if err := m.cover(source, f[0]); err != nil {
			m.note("%s left as it is: %v", f[0], err)
		}
	}
	return nil
}

// cover bind-mounts source over the file target. One that is missing is made
// empty where its folder is there; a symlink into /run, which has nothing
// yet, gets a file of its own.
func (m *machine) cover(source, target string) error {
	err := unix.Mount(source, target, "", unix.MS_BIND, "")
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	place := target
	if link, err := os.Readlink(target); err == nil {
		place = link
		if !path.IsAbs(link) {
			place = path.Join(path.Dir(target), link)
		}
		if !strings.HasPrefix(place, runDir+"/") {
			return fmt.Errorf("it is a symlink to %s, which is missing", link)
		}
		if err := os.MkdirAll(path.Dir(place), 0o755); err != nil {
			return err
		}
	} else if m.config.ReadOnly {
		return errNoPoint
	}
	f, err := os.OpenFile(place, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return unix.Mount(source, target, "", unix.MS_BIND, "")
}

// hosts is /etc/hosts. The machine's own name needs an address even without
// a network: sudo and others look it up. 127.0.1.1 is Debian's choice.
func hosts(hostname, address string) string {
	own := "127.0.1.1"
	if p, err := netip.ParsePrefix(address); err == nil {
		own = p.Addr().String()
	}
	names := hostname
	if short, _, found := strings.Cut(hostname, "."); found {
		names += " " + short
	}
	return "127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n" +
		own + "\t" + names + "\n"
}

// resolvConf is /etc/resolv.conf.
func resolvConf(n *guest.Network) string {
	var b strings.Builder
	for _, s := range n.DNS {
		b.WriteString("nameserver " + s + "\n")
	}
	if len(n.Search) > 0 {
		b.WriteString("search " + strings.Join(n.Search, " ") + "\n")
	}
	return b.String()
}
