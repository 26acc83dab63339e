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

// setNames sets the hostname and gives the image's programs the files in which
// they look up names. It covers the image's own files by bind mounts, as docker
// does, and leaves them unchanged.
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
	dir, err := m.privateDir("etc")
	if err != nil {
		return fmt.Errorf("set names: %w", err)
	}
	for _, f := range files {
		source := path.Join(dir, path.Base(f[0]))
		if err := os.WriteFile(source, []byte(f[1]), 0o644); err != nil {
			return fmt.Errorf("set names: %w", err)
		}
		if err := m.bindOver(source, f[0]); err != nil {
			m.note("%s left as it is: %v", f[0], err)
		}
	}
	return nil
}

// bindOver bind-mounts source over the file target. If target is missing, it
// creates an empty file first, unless the folder is missing too. If target is a
// symlink into /run, which is still empty, it creates the file that the symlink
// names.
func (m *machine) bindOver(source, target string) error {
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
	} else if m.locked() {
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

// hosts returns the content of /etc/hosts. The machine's hostname has an
// address even without a network, because sudo and other programs look it up.
// 127.0.1.1 is Debian's choice.
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

// resolvConf returns the content of /etc/resolv.conf.
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
