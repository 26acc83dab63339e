// Package fetch gets the images and kernels that a command needs, by flags and
// configuration. It finds them in the store or pulls them.
package fetch

import (
	"cmp"
	"errors"
	"strings"

	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
	"github.com/banger-vm/banger/internal/image/build"
	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/spf13/cobra"
)

// Flags are the flags of the commands that read an image or build its disk.
type Flags struct {
	platform  string
	size      string
	builder   string
	pathsMode string
	label     string
	uuid      string
	maxSize   string
	maxInodes int
	maxDisk   string
	maxWindow string
	plainHTTP bool
	caCert    string
	force     bool
}

// Register adds all the flags to a command that builds a disk.
func (f *Flags) Register(cmd *cobra.Command) {
	f.RegisterRead(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.size, "size", "", "size of the disk as 4G, or free space over the content as +2G")
	flags.StringVar(&f.builder, "builder", "", "what writes the disk: native or e2fsprogs (default "+string(build.DefaultBuilder)+")")
	flags.StringVar(&f.label, "label", "", "label of the file system, at most 16 bytes")
	flags.StringVar(&f.uuid, "uuid", "", "UUID of the file system (default derived from the layers)")
	flags.StringVar(&f.maxDisk, "max-disk", "", "refuse an image that needs a larger disk, as 50G")
	flags.BoolVar(&f.force, "force", false, "replace what is there")
	arg.FlagGroup(flags, arg.DiskFlags, "size", "builder", "label", "uuid", "max-disk", "force")
}

// RegisterRead adds the flags that apply to reading an image: the platform, the
// registry, paths and limits.
func (f *Flags) RegisterRead(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.platform, "platform", "", "os/arch[/variant] or arch of the image (default linux on this host's architecture)")
	flags.StringVar(&f.pathsMode, "paths", "", "rooted, strict or scoped: strict refuses absolute names in layers, scoped resolves .. and symlinks inside the image (default rooted)")
	flags.StringVar(&f.maxSize, "max-size", "", "refuse an image that unpacks to more bytes, as 20G")
	flags.IntVar(&f.maxInodes, "max-inodes", 0, "refuse an image that makes more inodes")
	flags.StringVar(&f.maxWindow, "max-window", "", "refuse a zstd layer with a larger window, which takes memory (default 512M, at most 2G)")
	flags.BoolVar(&f.plainHTTP, "plain-http", false, "speak http to the registry instead of https")
	flags.StringVar(&f.caCert, "cacert", "", "PEM file of a certificate authority to trust besides the system's")
	arg.FlagGroup(flags, arg.ImageFlags, "platform", "paths", "max-size", "max-inodes", "max-window", "plain-http", "cacert")
}

// Options returns the options for a build of source, from the flags and the
// configuration. A flag takes precedence.
func (f *Flags) Options(e *env.Env, source string) (build.Options, error) {
	c := e.Config
	o := build.Options{
		Label: f.label, UUID: f.uuid, Force: f.force,
		MaxUnpacked: int64(c.Limits.Unpacked), MaxDepth: c.Limits.Depth, MaxXattr: int(c.Limits.XattrValue),
		MaxInodes: cmp.Or(f.maxInodes, c.Limits.Inodes), MaxDisk: int64(c.Limits.Disk),
	}
	if f.maxInodes < 0 {
		return o, exit.Usagef("--max-inodes=%d is negative", f.maxInodes)
	}
	if name := cmp.Or(f.builder, c.Builder); name != "" {
		var err error
		if o.Builder, err = build.ParseBuilder(name); err != nil {
			return o, exit.Usagef("%v", err)
		}
	}
	var err error
	if o.Paths, err = build.ParsePaths(cmp.Or(f.pathsMode, c.Paths)); err != nil {
		return o, exit.Usagef("%v", err)
	}
	if err := f.sizes(&o); err != nil {
		return o, err
	}
	if o.Pull, err = f.pullOptions(e, source); err != nil {
		return o, err
	}
	return o, f.window(&o.Pull)
}

func (f *Flags) sizes(o *build.Options) error {
	for _, s := range []struct {
		flag, text string
		to         *int64
	}{
		{"--size", strings.TrimPrefix(f.size, "+"), &o.Size},
		{"--max-size", f.maxSize, &o.MaxUnpacked},
		{"--max-disk", f.maxDisk, &o.MaxDisk},
	} {
		if s.text == "" {
			continue
		}
		n, err := env.ParseSize(s.text)
		if err != nil {
			return exit.Usagef("%s: %v", s.flag, err)
		}
		if n == 0 {
			return exit.Usagef("%s: must be more than 0", s.flag)
		}
		*s.to = n
	}
	if strings.HasPrefix(f.size, "+") {
		o.Size, o.Headroom = 0, o.Size
	}
	return nil
}

// window sets the limit on zstd windows.
func (f *Flags) window(o *pull.Options) error {
	if f.maxWindow == "" {
		return nil
	}
	n, err := env.ParseSize(f.maxWindow)
	if err == nil && (n == 0 || n > 2<<30) {
		err = errors.New("want a size up to 2G")
	}
	if err != nil {
		return exit.Usagef("--max-window: %v", err)
	}
	o.MaxWindow = n
	return nil
}

// pullOptions returns the options for a pull of source. It takes the settings of
// the registry from the configuration.
func (f *Flags) pullOptions(e *env.Env, source string) (pull.Options, error) {
	c := e.Config
	o := pull.Options{
		Platform: cmp.Or(f.platform, c.Platform), CacheDir: e.Paths.Cache, Stdin: e.In,
		PlainHTTP: f.plainHTTP, CACert: f.caCert,
		MaxJSON: int64(c.Limits.JSON), MaxLayers: c.Limits.Layers, MaxWindow: int64(c.Limits.Window),
		MaxConnections: c.Limits.Connections, MinRate: int64(c.Limits.MinRate),
		Mirrors: map[string][]string{},
	}
	for host, r := range c.Registry {
		o.Mirrors[host] = r.Mirrors
	}
	host, err := pull.RegistryHost(source)
	if _, ok := errors.AsType[*pull.PathError](err); ok {
		return o, err // it has a hint
	}
	if err != nil {
		return o, exit.Usagef("%v", err)
	}
	if r, ok := c.Registry[host]; ok {
		o.PlainHTTP = o.PlainHTTP || r.PlainHTTP
		o.CACert = cmp.Or(o.CACert, r.CACert)
		for _, n := range r.AllowAddresses {
			o.AllowAddresses = append(o.AllowAddresses, n.Prefix)
		}
	}
	return o, nil
}
