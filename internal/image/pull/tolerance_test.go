package pull

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/base/digest"
)

// gzipLayer is the media type of most layers.
const gzipLayer = typeOCILayer + "v1.tar+gzip"

// manifestOf returns a manifest whose configuration has the type kind.
func (d documentServer) manifestOf(kind, config string, layers ...string) string {
	return fmt.Sprintf(`{"schemaVersion":2,"config":%s,"layers":[%s]}`, d.descriptor(kind, config), strings.Join(layers, ","))
}

// TestConfigurationTypes resolves manifests whose configurations have types other
// than an image's. Registries before 2016 gave images application/octet-stream:
// python:3.5.1-alpine and redis:2 of Docker Hub have it to this day.
func TestConfigurationTypes(t *testing.T) {
	for _, row := range []struct{ name, kind, config, extra, want string }{
		{"octet-stream", "application/octet-stream", configOf1, "", ""},
		{"JSON", "application/json", configOf1, "", ""},
		{"web page", "text/html", configOf1, "", ""},
		{"with a parameter", "text/plain; charset=utf-8", configOf1, "", ""},
		{"a vendor's type", "application/vnd.example.image.v7+json", configOf1, "", ""},
		{"none", "", configOf1, "", ""},
		{"JSON of something else", "application/json", `{"a":1}`, "", `artifact of type "application/json"`},
		{"no JSON", "application/octet-stream", "<html>", "", `artifact of type "application/octet-stream"`},
		{"another number of layers", "application/json", configOf0, "", "1 layers, its configuration 0"},
		{"Helm", "application/vnd.cncf.helm.config.v1+json", configOf1, "", "helm"},
		{"a plugin of Docker", "application/vnd.docker.plugin.v1+json", configOf1, "", "docker.plugin"},
		{"the empty configuration", "application/vnd.oci.empty.v1+json", "{}", "", "oci.empty"},
		{"an artifact type", typeOCIConfig, configOf1, `"artifactType":"application/x-sbom",`, `artifact of type "application/x-sbom"`},
		{"a huge configuration of a vendor", "application/vnd.example.blob", strings.Repeat(" ", 9<<20), "", "vnd.example.blob"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, d := newServer(t), documentServer{}
			root := d.manifestOf(row.kind, row.config, d.descriptor(gzipLayer, "layer"))
			s.injectFault(d.serve("{"+row.extra+root[1:], typeDockerManifest))
			img, err := Resolve(t.Context(), s.ref("app:1"), testOptions(t))
			if row.want != "" {
				expectError(t, err, row.want)
			} else if err != nil || len(img.Layers) != 1 {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestLayerTypes resolves manifests with layers of many types. A layer that is no
// tar is refused before it is read.
func TestLayerTypes(t *testing.T) {
	for kind, want := range map[string]string{
		"":                                                    "",
		"application/octet-stream":                            "",
		"application/gzip":                                    "",
		gzipLayer:                                             "",
		typeOCILayer + "v1.tar+zstd":                          "",
		typeDockerLayer + "diff.tar":                          "",
		gzipLayer + "; charset=binary":                        "",
		typeOCILayer + "nydus.blob.v1":                        "Nydus",
		typeOCILayer + "v1.erofs":                             "EROFS",
		"application/vnd.erofs.layer.v1+zstd":                 "EROFS",
		typeOCILayer + "v1.dedup+squashfs":                    "SquashFS",
		"application/vnd.wasm.content.layer.v1+wasm":          "WebAssembly",
		gzipLayer + "+encrypted":                              "encrypted",
		typeOCILayer + "v2.box":                               "is not a layer",
		"application/vnd.dev.cosign.simplesigning.v1+json":    "is not a layer",
		"application/vnd.cncf.helm.chart.content.v1.tar+gzip": "is not a layer",
		gzipLayer + `","annotations":{"containerd.io/snapshot/overlaybd/version":"0.1"},"x":"`: "OverlayBD",
	} {
		t.Run(kind, func(t *testing.T) {
			s, d := newServer(t), documentServer{}
			layer := strings.Replace(d.descriptor("TYPE", "layer"), "TYPE", kind, 1)
			s.injectFault(d.serve(d.manifestOf(typeOCIConfig, configOf1, layer), typeOCIManifest))
			_, err := Resolve(t.Context(), s.ref("app:1"), testOptions(t))
			if want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			expectError(t, err, want, "layer "+string(digest.FromBytes([]byte("layer"))))
			if n := s.count(string(digest.FromBytes([]byte("layer")))); n != 0 {
				t.Errorf("%d requests for the layer", n)
			}
		})
	}
}

// TestOddConfigurations parses values that builders write in place of the ones
// that the specification asks for.
func TestOddConfigurations(t *testing.T) {
	show := func(c *imageConfig) string {
		return fmt.Sprintf("%s %q %q %q %q %q %v", c.file.OS, c.file.Config.Entrypoint, c.file.Config.Cmd,
			c.file.Config.Env, c.file.Config.User, c.file.Config.Labels, c.file.Created.Unix())
	}
	const none = `linux [] [] [] "" map[] -62135596800`
	for _, row := range []struct {
		fields, want string
		warnings     []string // parts of them, in order
	}{
		{``, none, nil},
		{`"config":null,"created":null,"history":null,"variant":null,`, none, nil},
		{`"config":{"Entrypoint":null,"Cmd":null,"Env":null,"Labels":null,"Volumes":null,"ExposedPorts":null,"User":null},`, none, nil},
		{`"config":{"Entrypoint":"/bin/sh","Cmd":"-c"},`, `linux ["/bin/sh"] ["-c"] [] "" map[] -62135596800`, nil},
		{`"config":{"Entrypoint":"","Cmd":["a",null]},`, `linux [] ["a" ""] [] "" map[] -62135596800`, nil},
		{`"config":{"Labels":[],"Volumes":[ ],"ExposedPorts":[],"Healthcheck":[],"OnBuild":"x"},`, none, nil},
		{`"config":[],`, none, nil},
		{`"config":{"Env":["=x","A=b"]},`, `linux [] [] ["A=b"] "" map[] -62135596800`, []string{`an entry of config.Env is "=x"`}},
		{`"config":{"User":1000,"Env":["A=b",null,""]},`, `linux [] [] ["A=b"] "1000" map[] -62135596800`, []string{"config.Env"}},
		{`"created":"","history":[{"created":"","empty_layer":"yes"}],`, none, []string{`created is ""`, "history"}},
		{`"created":"yesterday",`, none, []string{`created is "yesterday"`}},
		{`"created":"2020-01-01T00:00:00Z","history":"none",`, `linux [] [] [] "" map[] 1577836800`, []string{"history"}},
		{`"config":{"Labels":{"a":1},"Env":["A=b"],"Cmd":{"a":"b"}},`, `linux [] [] ["A=b"] "" map[] -62135596800`,
			[]string{"config.Cmd is {", "config.Labels is {"}},
		{`"config":"none",`, none, []string{`config is "none"`}},
		{`"Config":{"entrypoint":"/x"},`, `linux ["/x"] [] [] "" map[] -62135596800`, nil},
		{`"author":["a"],"docker_version":{"\u001b[2J":1},`, none, []string{"author is [", "docker_version is {"}},
	} {
		c, err := parseConfig([]byte("{" + row.fields + configOf1[1:]))
		if err != nil {
			t.Errorf("%s: %v", row.fields, err)
			continue
		}
		if got := show(c); got != row.want || len(c.diffIDs) != 1 {
			t.Errorf("%s: got %s, want %s", row.fields, got, row.want)
		}
		ok := len(c.warnings) == len(row.warnings)
		for i := 0; ok && i < len(row.warnings); i++ {
			ok = strings.Contains(c.warnings[i], row.warnings[i]) && strings.HasSuffix(c.warnings[i], "taken as absent")
		}
		if !ok {
			t.Errorf("%s: warnings %q, want %q", row.fields, c.warnings, row.warnings)
		}
	}
	for _, text := range []string{`[]`, `"x"`, `{`, `{"rootfs":5}`, `{"rootfs":{"diff_ids":"sha256:` + zeros + `"}}`,
		`{"rootfs":{"diff_ids":[null]}}`, `{"created":"","history":[` + strings.Repeat("0,", maxList) + `0]}`} {
		if c, err := parseConfig([]byte(text)); err == nil {
			t.Errorf("%.80s was parsed as %+v", text, c.file)
		}
	}
	var many strings.Builder
	for i := range 64 { // one key in 64 spellings
		key := []byte("author")
		for bit := range key {
			key[bit] -= byte(i>>bit&1) * ('a' - 'A')
		}
		fmt.Fprintf(&many, `"%s":["a"],`, key)
	}
	if c, err := parseConfig([]byte("{" + many.String() + configOf1[1:])); err != nil || len(c.warnings) != maxOddFields+1 {
		t.Errorf("%d warnings, %v", len(c.warnings), err)
	}
}

// TestIndexDecidesThePlatform resolves an index whose entries give other platforms
// than the configurations of their images.
func TestIndexDecidesThePlatform(t *testing.T) {
	s, d := newServer(t), documentServer{}
	entry := func(config, platform string) string {
		return strings.TrimSuffix(d.descriptor(typeOCIManifest, d.manifestOf(typeOCIConfig, config, d.descriptor(gzipLayer, "layer"))), "}") +
			platform + "}"
	}
	arm := strings.Replace(configOf1, "amd64", "arm64", 1)
	index := func(entries ...string) handler {
		return d.serve(`{"schemaVersion":2,"manifests":[`+strings.Join(entries, ",")+`]}`, typeOCIIndex)
	}
	swapped := []string{entry(configOf1, `,"platform":{"os":"linux","architecture":"arm64"}`), entry(arm, `,"platform":{"architecture":"amd64"}`)}
	for _, row := range []struct {
		want    string
		entries []string
		digest  string
	}{
		{"linux/amd64", swapped, swapped[1]},
		{"linux/arm64", swapped, swapped[0]},
	} {
		s.injectFault(index(row.entries...))
		o := testOptions(t)
		o.Platform = row.want
		img := mustResolve(t, s.ref("app:1"), o)
		if img.Platform != row.want || !strings.Contains(row.digest, string(img.Digest)) ||
			!slices.ContainsFunc(img.Warnings, func(w string) bool { return strings.Contains(w, "the index decides") }) {
			t.Errorf("%s: got %s %s, warnings %q", row.want, img.Platform, img.Digest, img.Warnings)
		}
		// banger image verify reads the manifest without its index.
		o.AnyPlatform = true
		s.injectFault(d.serve("", ""))
		if again := mustResolve(t, AtDigest(s.ref("app:1"), img.Digest), o); again.Digest != img.Digest {
			t.Errorf("by digest: got %s", again.Digest)
		}
	}
	// An entry with an empty platform counts as one without a platform.
	s.injectFault(index(entry(configOf1, `,"platform":{"os":"","architecture":""}`)))
	o := testOptions(t)
	mustResolve(t, s.ref("app:1"), o)
	o.Platform = "s390x"
	_, err := Resolve(t.Context(), s.ref("app:1"), o)
	expectError(t, err, "no image for platform linux/s390x (available: linux/amd64)")
}
