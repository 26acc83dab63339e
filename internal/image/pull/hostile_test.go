package pull

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/base/digest"
)

// member is a file in an archive.
type member struct {
	name, body, link string
	kind             byte // 0 is tar.TypeReg
}

func archiveOf(t *testing.T, members ...member) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Typeflag: m.kind, Linkname: m.link, Mode: 0o644, Size: int64(len(m.body))}
		if m.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// savedMembers returns the members of a docker save archive with one layer "l".
func savedMembers(config string, members ...member) []member {
	manifest := fmt.Sprintf(`[{"Config":"c","RepoTags":["a:1"],"Layers":[%s]}]`, `"l"`)
	return append([]member{{name: "manifest.json", body: manifest}, {name: "c", body: config}}, members...)
}

const (
	zeros      = "0000000000000000000000000000000000000000000000000000000000000000"
	configOf1  = `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["sha256:` + zeros + `"]}}`
	configOf0  = `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}`
	tarOfBytes = "tar"
)

// TestDockerArchiveLinks reads layers that are links, which older versions of
// docker save wrote.
func TestDockerArchiveLinks(t *testing.T) {
	for name, m := range map[string][]member{
		"file":           {{name: "./l", body: tarOfBytes}},
		"symbolic link":  {{name: "l", kind: tar.TypeSymlink, link: "dir/../other"}, {name: "other", body: tarOfBytes}},
		"hard link":      {{name: "other", body: tarOfBytes}, {name: "l", kind: tar.TypeLink, link: "other"}},
		"link to a link": {{name: "l", kind: tar.TypeSymlink, link: "m"}, {name: "m", kind: tar.TypeSymlink, link: "n"}, {name: "n", body: tarOfBytes}},
	} {
		t.Run(name, func(t *testing.T) {
			img := mustResolve(t, "docker-archive:"+tempFile(t, archiveOf(t, savedMembers(configOf1, m...)...)), testOptions(t))
			if got := readString(t, img.Layers[0]); got != tarOfBytes || FamiliarName(img.Name) != "a:1" {
				t.Errorf("got %q, %s", got, img.Name)
			}
		})
	}
}

// TestDockerArchiveThatIsAlsoALayout reads the format of docker save since version
// 25, where the names of files have digests.
func TestDockerArchiveThatIsAlsoALayout(t *testing.T) {
	name := func(text string) string { return "blobs/sha256/" + digest.FromBytes([]byte(text)).Hex() }
	for body, want := range map[string]string{tarOfBytes: "", "oth": "digest mismatch"} {
		data := archiveOf(t,
			member{name: "manifest.json", body: fmt.Sprintf(`[{"Config":%q,"Layers":[%q]}]`, name(configOf1), name(tarOfBytes))},
			member{name: name(configOf1), body: configOf1}, member{name: name(tarOfBytes), body: body})
		img := mustResolve(t, "docker-archive:"+tempFile(t, data), testOptions(t))
		l := img.Layers[0]
		_, err := readLayer(t.Context(), l)
		if l.Digest() != digest.FromBytes([]byte(tarOfBytes)) || img.Digest != digest.FromBytes([]byte(configOf1)) || (err != nil) != (want != "") {
			t.Errorf("%q: got %s, %v", body, l.Digest(), err)
		}
		if want != "" {
			expectError(t, err, "layer "+string(l.Digest()), want)
		}
	}
}

func TestHostileArchives(t *testing.T) {
	layer := member{name: "l", body: tarOfBytes}
	many := make([]member, maxArchiveEntries+1)
	for i := range many {
		many[i].name = fmt.Sprint(i)
	}
	manifest := func(text string) []byte { return archiveOf(t, member{name: "manifest.json", body: text}) }
	whole := archiveOf(t, savedMembers(configOf1, layer)...)
	for _, row := range []struct {
		name, want string
		data       []byte
	}{
		{"layer climbs out of the archive", "no such file", archiveOf(t, savedMembers(configOf1, member{name: "l", kind: tar.TypeSymlink, link: "../../../etc/hostname"})...)},
		{"layer is an absolute link", "absolute", archiveOf(t, savedMembers(configOf1, member{name: "l", kind: tar.TypeSymlink, link: "/etc/hostname"})...)},
		{"layer links to itself", "links", archiveOf(t, savedMembers(configOf1, member{name: "l", kind: tar.TypeSymlink, link: "l"})...)},
		{"layer is a fifo", "not a regular file", archiveOf(t, savedMembers(configOf1, member{name: "l", kind: tar.TypeFifo})...)},
		{"layer is a device", "not a regular file", archiveOf(t, savedMembers(configOf1, member{name: "l", kind: tar.TypeBlock})...)},
		{"layer is a folder", "no such file", archiveOf(t, savedMembers(configOf1, member{name: "l/", kind: tar.TypeDir})...)},
		{"layer appears twice", "twice", archiveOf(t, savedMembers(configOf1, layer, layer)...)},
		{"manifest appears twice", "twice", archiveOf(t, append(savedMembers(configOf1, layer), member{name: "./manifest.json", body: "[]"})...)},
		{"layer is missing", "no such file", archiveOf(t, savedMembers(configOf1)...)},
		{"configuration has other layers", "1 layers, its configuration 0", archiveOf(t, savedMembers(configOf0, layer)...)},
		{"configuration is no JSON", "parse image configuration", archiveOf(t, savedMembers("{", layer)...)},
		{"configuration is huge", "limit", archiveOf(t, savedMembers(strings.Repeat(" ", 9<<20), layer)...)},
		{"configuration is of another digest", "digest mismatch", archiveOf(t, member{name: "manifest.json",
			body: `[{"Config":"` + zeros + `.json","Layers":[]}]`}, member{name: zeros + ".json", body: configOf0})},
		{"configuration climbs", "no such file", manifest(`[{"Config":"../../etc/passwd","Layers":[]}]`)},
		{"manifest is an object", "parse manifest.json: want a list", manifest(`{}`)},
		{"manifest is empty", "no images", manifest(`[]`)},
		{"manifest of many images", "more than 4096", manifest("[" + strings.Repeat("{},", maxList) + "{}]")},
		{"manifest with many layers", "more than 4096", manifest(`[{"Config":"c","Layers":[` + strings.Repeat(`"",`, maxList) + `""]}]`)},
		{"too many entries", "more than 65536 entries", archiveOf(t, many...)},
		{"endless name", "name of more than", archiveOf(t, member{name: strings.Repeat("a/", 5000) + "x"})},
		{"truncated in a header", "read archive", whole[:1100]},
		{"truncated in a file", "read archive", archiveOf(t, member{name: "l", body: strings.Repeat("x", 5000)})[:2000]},
		{"gzip truncated", "EOF", gzipped(t, whole)[:60]},
		{"gzip with a flipped bit", "", flipped(gzipped(t, whole))},
		{"zstd truncated", "EOF", zstdCompressed(t, whole)[:60]},
		{"zstd window of 1 GiB", "the limit is 536870912 (set by --max-window)", append([]byte("\x28\xb5\x2f\xfd\x00\xa0"), 9, 0, 0, 0, 0)},
		{"gzip magic number alone", "header", []byte("\x1f\x8bxxxxxxxxxxxxxxxx")},
	} {
		t.Run(row.name, func(t *testing.T) {
			o := testOptions(t)
			_, err := Resolve(t.Context(), "docker-archive:"+tempFile(t, row.data), o)
			expectError(t, err, row.want)
			expectEmptyCache(t, o)
		})
	}
}

func flipped(data []byte) []byte {
	data[len(data)/2] ^= 0x10
	return data
}

// TestDecompressionBomb resolves an archive that unpacks to more than MaxSpool.
func TestDecompressionBomb(t *testing.T) {
	for name, data := range map[string][]byte{"gzip": gzipped(t, make([]byte, 10<<20)), "zstd": zstdCompressed(t, make([]byte, 10<<20))} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t)
			o.MaxSpool = 1 << 20
			_, err := Resolve(t.Context(), "docker-archive:"+tempFile(t, data), o)
			expectError(t, err, "more than 1048576 bytes")
			expectEmptyCache(t, o)
		})
	}
}

// documentServer is a registry that serves texts by digest, and one text by tag.
type documentServer map[digest.Digest]string

func (d documentServer) add(text string) (digest.Digest, int) {
	h := digest.FromBytes([]byte(text))
	d[h] = text
	return h, len(text)
}

func (d documentServer) descriptor(kind, text string) string {
	h, n := d.add(text)
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, kind, h, n)
}

func (d documentServer) serve(root, kind string) handler {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		text, ok := root, true
		if name := filepath.Base(r.URL.Path); strings.HasPrefix(name, "sha256:") {
			text, ok = d[digest.Digest(name)]
		} else if r.URL.Path == "/v2/" {
			return
		}
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", kind)
		_, _ = io.WriteString(w, text)
	}
}

func TestHostileDocuments(t *testing.T) {
	d := documentServer{}
	layer := func(kind string) string { return d.descriptor(kind, "layer") }
	const gz = typeOCILayer + "v1.tar+gzip"
	config := d.descriptor(typeOCIConfig, configOf1)
	manifest := func(config, layers string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"config":%s,"layers":[%s]}`, config, layers)
	}
	sized := func(n string) string {
		return fmt.Sprintf(`{"digest":"sha256:%s","size":%s}`, zeros, n)
	}
	for _, row := range []struct{ name, kind, root, want string }{
		{"good", typeOCIManifest, manifest(config, layer(gz)), ""},
		{"layer without media type", typeOCIManifest, manifest(config, layer("")), ""},
		{"schema 1", typeDockerSchema1 + "prettyjws", `{"schemaVersion":1,"fsLayers":[]}`, "schema 1"},
		{"schema 1 in disguise", typeOCIManifest, `{"schemaVersion":2,"fsLayers":[],"config":{}}`, "schema 1"},
		{"schema 3", typeOCIManifest, `{"schemaVersion":3,"config":{}}`, "version 3"},
		{"both manifest and index", "", `{"schemaVersion":2,"manifests":[],"layers":[]}`, "both"},
		{"index with a manifest's type", typeOCIManifest, `{"schemaVersion":2,"manifests":[]}`, "does not match its media type"},
		{"manifest with an index's type", typeOCIIndex, `{"schemaVersion":2,"config":{}}`, "does not match its media type"},
		{"neither", "application/json", `{"schemaVersion":2}`, "neither"},
		{"empty index", typeOCIIndex, `{"schemaVersion":2,"manifests":[]}`, "no image for platform"},
		{"trailing data", typeOCIManifest, manifest(config, layer(gz)) + "{}", "parse manifest"},
		{"endless nesting", typeOCIManifest, strings.Repeat(`{"a":`, 100_000), "parse manifest"},
		{"too long list", typeOCIIndex, `{"schemaVersion":2,"manifests":[` + strings.Repeat("{},", maxList) + "{}]}", "more than 4096"},
		{"too many layers", typeOCIManifest, manifest(config, strings.Repeat(layer(gz)+",", 600)+layer(gz)), "601 layers, the limit is 512"},
		{"encrypted layer", typeOCIManifest, manifest(config, layer(gz+"+encrypted")), "encrypted"},
		{"foreign layer", typeOCIManifest, manifest(config, `{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"sha256:`+
			zeros+`","size":1,"urls":["http://169.254.169.254/"]}`), "foreign"},
		{"layer of another kind", typeOCIManifest, manifest(config, layer("application/vnd.in-toto+json")), "is not a layer"},
		{"artifact", typeOCIManifest, manifest(d.descriptor("application/vnd.cncf.helm.config.v1+json", "{}"), ""), "helm"},
		{"artifact in an index", typeOCIIndex, `{"schemaVersion":2,"manifests":[` + d.descriptor(typeOCIManifest,
			manifest(d.descriptor("application/vnd.cncf.helm.config.v1+json", "{}"), "")) + `]}`, "helm"},
		{"other layer count", typeOCIManifest, manifest(config, layer(gz)+","+layer(gz)), "2 layers, its configuration 1"},
		{"other digest algorithm", typeOCIManifest, manifest(config, `{"digest":"sha512:`+zeros+zeros+`","size":1}`), "not sha256"},
		{"digest that climbs", typeOCIManifest, manifest(config, `{"digest":"sha256:../../../etc/passwd","size":1}`), "hexadecimal"},
		{"negative size", typeOCIManifest, manifest(config, sized("-1")), "size -1"},
		{"size of another type", typeOCIManifest, manifest(config, sized(`"1"`)), "parse manifest"},
		{"size too large for a number", typeOCIManifest, manifest(config, sized("9223372036854775808")), "parse manifest"},
		{"huge configuration", typeOCIManifest, manifest(sized("9000000000"), layer(gz)), "limit"},
		{"configuration missing", typeOCIManifest, manifest(sized("10"), layer(gz)), "not found"},
		{"configuration longer than its size", typeOCIManifest, manifest(strings.Replace(config, `"size":`, `"size":1`, 1), layer(gz)), "server sends"},
		{"configuration with odd rootfs", typeOCIManifest, manifest(d.descriptor("", `{"rootfs":{"type":"x"}}`), ""), `type "x"`},
		{"diffID of another algorithm", typeOCIManifest, manifest(d.descriptor("", `{"rootfs":{"diff_ids":["md5:00"]}}`), layer(gz)), "not sha256"},
		{"too long history", typeOCIManifest, manifest(d.descriptor("", `{"history":[`+strings.Repeat("{},", maxList)+`{}]}`), ""), "more than 4096"},
		{"configuration that is no image's", typeOCIManifest, manifest(d.descriptor("", `["linux"]`), ""), "parse image configuration"},
		{"escape sequence in a media type", "x", `{"schemaVersion":2,"mediaType":"\u001b[2J"}`, "neither"},
		{"escape sequence in a platform", typeOCIIndex, `{"schemaVersion":2,"manifests":[{"digest":"","platform":{"os":"\u001b[2J\n","architecture":"x"}}]}`, "[2j/x"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, o := newServer(t), testOptions(t)
			s.injectFault(d.serve(row.root, row.kind))
			_, err := Resolve(t.Context(), s.ref("app:1"), o)
			if row.want == "" && err == nil {
				return
			}
			expectError(t, err, row.want)
			expectIntactBlobs(t, o)
			if _, err := os.Stat(filepath.Join(o.CacheDir, "..", "etc")); err == nil {
				t.Error("a digest became a path")
			}
		})
	}
}

// TestManifestOfAnotherDigest resolves from a registry whose manifests do not
// match their digests.
func TestManifestOfAnotherDigest(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	d := documentServer{}
	s.injectFault(d.serve("", typeOCIManifest))
	d["sha256:"+zeros] = fmt.Sprintf(`{"schemaVersion":2,"config":%s,"layers":[]}`, d.descriptor("", configOf0))
	_, err := Resolve(t.Context(), s.ref("app@sha256:"+zeros), o)
	expectError(t, err, "digest mismatch")
	s.injectFault(d.serve(`{"schemaVersion":2,"manifests":[{"digest":"sha256:`+zeros+`","size":`+fmt.Sprint(len(d["sha256:"+zeros]))+`}]}`, typeOCIIndex))
	_, err = Resolve(t.Context(), s.ref("app:1"), o)
	expectError(t, err, "digest mismatch")
}

func FuzzDocument(f *testing.F) {
	seeds := []string{
		`{"schemaVersion":2,"config":{"digest":"sha256:` + zeros + `","size":1},"layers":[{"digest":"x","urls":["a"]}]}`,
		`{"schemaVersion":2,"manifests":[{"digest":"sha256:` + zeros + `","size":1,"platform":{"os":"linux"}}]}`,
		configOf1, `{"schemaVersion":1}`, `[]`, `null`, `{"layers":null,"config":null}`,
	}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add([]byte(s), typeOCIManifest)
	}
	f.Fuzz(func(t *testing.T, data []byte, kind string) {
		if doc, err := parseDocument(data, kind); err == nil {
			if doc.isIndex() {
				selectBoth(doc.Manifests)
			} else if doc.checkImage(10) == nil && len(doc.Layers) > 10 {
				t.Error("more layers than allowed")
			}
		}
		if c, err := parseConfig(data); err == nil && len(c.diffIDs) != len(c.file.RootFS.DiffIDs) {
			t.Errorf("%d diffIDs, want %d", len(c.diffIDs), len(c.file.RootFS.DiffIDs))
		}
	})
}

// selectBoth calls selectEntries with and without a tag. It ignores the results,
// because the fuzz test only looks for panics.
func selectBoth(entries []descriptor) {
	_, _ = selectEntries(entries, "")
	_, _ = selectEntries(entries, "a:1")
	for _, d := range entries {
		_, _ = d.imageName("a:1")
	}
}

func FuzzArchive(f *testing.F) {
	seeds := [][]byte{}
	for _, m := range [][]member{
		savedMembers(configOf1, member{name: "l", body: tarOfBytes}),
		savedMembers(configOf1, member{name: "l", kind: tar.TypeSymlink, link: "m"}, member{name: "m", body: tarOfBytes}),
		{{name: "oci-layout", body: layoutVersion}, {name: "index.json", body: `{"schemaVersion":2,"manifests":[]}`}},
	} {
		var t testing.T
		seeds = append(seeds, archiveOf(&t, m...))
	}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := newArchive(t.Context(), bytes.NewReader(data), int64(len(data)), func() error { return nil })
		if err != nil {
			return
		}
		for name := range a.entries {
			if e, err := a.find(name); err == nil && (e.offset < 0 || e.size < 0 || e.offset+e.size > int64(len(data))) {
				t.Errorf("%q lies at %d+%d of %d bytes", name, e.offset, e.size, len(data))
			}
		}
		img, err := a.dockerImage(source{path: "x"}, platform{"linux", "amd64", ""}, Options{})
		if err != nil {
			return
		}
		for _, l := range img.Layers {
			if got, err := readLayer(t.Context(), l); err == nil && int64(len(got)) != l.Size() {
				t.Errorf("%d bytes, want %d", len(got), l.Size())
			}
		}
	})
}
