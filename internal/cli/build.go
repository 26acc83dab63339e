package cli

import (
	"strings"

	"github.com/banger-vm/banger/internal/image/build"
	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/spf13/cobra"
)

// buildFlags are the flags of every command that builds a disk.
type buildFlags struct {
	platform  string
	size      string
	builder   string
	pathsMode string
	label     string
	uuid      string
	maxSize   string
	maxInodes int
	plainHTTP bool
	caCert    string
	force     bool
}

func (b *buildFlags) register(cmd *cobra.Command) {
	b.registerRead(cmd)
	f := cmd.Flags()
	f.StringVar(&b.size, "size", "", "size of the disk as 4G, or free space over the content as +2G")
	f.StringVar(&b.builder, "builder", "", "what writes the disk: native or e2fsprogs (default "+string(build.DefaultBuilder)+")")
	f.StringVar(&b.label, "label", "", "label of the file system, at most 16 bytes")
	f.StringVar(&b.uuid, "uuid", "", "UUID of the file system (default derived from the layers)")
	f.BoolVar(&b.force, "force", false, "replace what is there")
}

// registerRead adds the flags that say how layers are got and read.
func (b *buildFlags) registerRead(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&b.platform, "platform", "", "os/arch[/variant] of the image (default linux on this host's architecture)")
	f.StringVar(&b.pathsMode, "paths", "", "strict refuses careless paths in layers, scoped resolves them inside the image (default strict)")
	f.StringVar(&b.maxSize, "max-size", "", "refuse an image that unpacks to more bytes, as 20G")
	f.IntVar(&b.maxInodes, "max-inodes", 0, "refuse an image that makes more inodes")
	f.BoolVar(&b.plainHTTP, "plain-http", false, "speak http to the registry instead of https")
	f.StringVar(&b.caCert, "cacert", "", "PEM file of a certificate authority to trust besides the system's")
}

// options joins flags and configuration for a build of source.
func (b *buildFlags) options(a *app, source string) (build.Options, error) {
	c := a.config
	o := build.Options{
		Label: b.label, UUID: b.uuid, Force: b.force,
		MaxUnpacked: int64(c.Limits.Unpacked), MaxDepth: c.Limits.Depth, MaxXattr: int(c.Limits.XattrValue),
		MaxInodes: first(b.maxInodes, c.Limits.Inodes),
	}
	if b.maxInodes < 0 {
		return o, usagef("--max-inodes=%d is negative", b.maxInodes)
	}
	if name := first(b.builder, c.Builder); name != "" {
		var err error
		if o.Builder, err = build.ParseBuilder(name); err != nil {
			return o, usagef("%v", err)
		}
	}
	switch mode := first(b.pathsMode, c.Paths); mode {
	case "", "strict":
	case "scoped":
		o.Scoped = true
	default:
		return o, usagef("paths mode %q: want strict or scoped", mode)
	}
	if err := b.sizes(&o); err != nil {
		return o, err
	}
	var err error
	o.Pull, err = b.pullOptions(a, source)
	return o, err
}

func (b *buildFlags) sizes(o *build.Options) error {
	for _, s := range []struct {
		flag, text string
		to         *int64
	}{
		{"--size", strings.TrimPrefix(b.size, "+"), &o.Size},
		{"--max-size", b.maxSize, &o.MaxUnpacked},
	} {
		if s.text == "" {
			continue
		}
		n, err := parseSize(s.text)
		if err != nil {
			return usagef("%s: %v", s.flag, err)
		}
		if n == 0 {
			return usagef("%s: must be more than 0", s.flag)
		}
		*s.to = n
	}
	if strings.HasPrefix(b.size, "+") {
		o.Size, o.Headroom = 0, o.Size
	}
	return nil
}

// pullOptions looks the registry of source up in the configuration.
func (b *buildFlags) pullOptions(a *app, source string) (pull.Options, error) {
	c := a.config
	o := pull.Options{
		Platform: first(b.platform, c.Platform), CacheDir: a.paths.Cache, Stdin: a.in,
		PlainHTTP: b.plainHTTP, CACert: b.caCert,
		MaxJSON: int64(c.Limits.JSON), MaxLayers: c.Limits.Layers, MaxConnections: c.Limits.Connections,
		Mirrors: map[string][]string{},
	}
	for host, r := range c.Registry {
		o.Mirrors[host] = r.Mirrors
	}
	host, err := pull.RegistryHost(source)
	if err != nil {
		return o, usagef("%v", err)
	}
	if r, ok := c.Registry[host]; ok {
		o.PlainHTTP = o.PlainHTTP || r.PlainHTTP
		o.CACert = first(o.CACert, r.CACert)
	}
	return o, nil
}

// first returns the first of its arguments that is not the zero value.
func first[T comparable](values ...T) T {
	var zero T
	for _, v := range values {
		if v != zero {
			return v
		}
	}
	return zero
}
