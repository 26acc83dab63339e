package pull

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

const (
	maxAuthFile   = 1 << 20  // bytes
	maxHelperText = 64 << 10 // bytes of a credential helper's output
	helperTimeout = 2 * time.Minute
	helperWait    = 500 * time.Millisecond // for the helper's pipes to close after the helper is killed
)

// hubKey is the key under which docker login stores credentials for Docker Hub.
const hubKey = "https://index.docker.io/v1/"

// keychain finds credentials in the files and variables of podman and docker
// (containers-auth.json(5); docker's config.json). The first place with
// credentials for a registry has priority; a file without them does not hide
// later files.
type keychain struct{}

// authFile is the part of a credentials file that this package reads.
type authFile struct {
	Auths       map[string]authEntry `json:"auths"`
	CredsStore  string               `json:"credsStore"`
	CredHelpers map[string]string    `json:"credHelpers"`
}

type authEntry struct {
	Auth          string `json:"auth"` // base64 of user:password
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// lookup returns the credentials for a repository. They are empty if there are
// none.
func (k *keychain) lookup(ctx context.Context, host, repo string) (authn.AuthConfig, error) {
	if text := os.Getenv("DOCKER_AUTH_CONFIG"); text != "" {
		c, err := lookupIn(ctx, []byte(text), host, repo)
		if err != nil {
			return c, fmt.Errorf("credentials in $DOCKER_AUTH_CONFIG: %w", err)
		}
		if c != (authn.AuthConfig{}) {
			return c, nil
		}
	}
	for _, path := range authFiles() {
		data, err := readFile(path, maxAuthFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var c authn.AuthConfig
		if err == nil {
			c, err = lookupIn(ctx, data, host, repo)
		}
		if err != nil {
			return c, fmt.Errorf("credentials of %s: %w", path, err)
		}
		if c != (authn.AuthConfig{}) {
			return c, nil
		}
	}
	return authn.AuthConfig{}, nil
}

// authFiles returns the paths of podman's credentials files, in the order of
// containers-auth.json(5), and then of docker's.
func authFiles() []string {
	var files []string
	add := func(dir string, parts ...string) {
		if dir != "" {
			files = append(files, filepath.Join(append([]string{dir}, parts...)...))
		}
	}
	home := os.Getenv("HOME")
	add(os.Getenv("REGISTRY_AUTH_FILE"))
	run := os.Getenv("XDG_RUNTIME_DIR")
	if run == "" {
		run = filepath.Join("/run/containers", strconv.Itoa(os.Getuid()))
		add(run, "auth.json")
	} else {
		add(run, "containers", "auth.json")
	}
	if config := os.Getenv("XDG_CONFIG_HOME"); config != "" {
		add(config, "containers", "auth.json")
	} else {
		add(home, ".config", "containers", "auth.json")
	}
	if config := os.Getenv("DOCKER_CONFIG"); config != "" {
		add(config, "config.json")
	} else {
		add(home, ".docker", "config.json")
	}
	return files
}

func lookupIn(ctx context.Context, data []byte, host, repo string) (authn.AuthConfig, error) {
	var f authFile
	if err := json.Unmarshal(data, &f); err != nil {
		return authn.AuthConfig{}, err
	}
	server := serverKey(host)
	helper := f.CredsStore
	for _, key := range []string{host, aliasOf(host), server} {
		if h := f.CredHelpers[key]; h != "" {
			helper = h
			break
		}
	}
	if helper != "" {
		c, err := runHelper(ctx, helper, server)
		if err != nil || c != (authn.AuthConfig{}) {
			return c, err
		}
	}
	return f.entry(host, repo)
}

// entry returns the credentials with the most specific key. Keys have the forms
// registry/name/space and registry. Older versions of docker wrote a URL in place
// of the registry.
func (f *authFile) entry(host, repo string) (authn.AuthConfig, error) {
	byHost := map[string]authEntry{}
	for key, e := range f.Auths {
		byHost[hostKey(key)] = e
	}
	for _, h := range []string{host, aliasOf(host)} {
		for key := h + "/" + repo; key != "." && key != ""; key = parent(key) {
			if e, ok := byHost[key]; ok {
				return e.config()
			}
		}
	}
	return authn.AuthConfig{}, nil
}

func parent(key string) string {
	i := strings.LastIndexByte(key, '/')
	return key[:max(i, 0)]
}

// hostKey returns the host of a key that is a URL. It returns other keys without
// their trailing slash.
func hostKey(key string) string {
	for _, scheme := range []string{"https://", "http://"} {
		if rest, ok := strings.CutPrefix(key, scheme); ok {
			key, _, _ = strings.Cut(rest, "/")
			return key
		}
	}
	return strings.TrimSuffix(key, "/")
}

// aliasOf returns the other host name of Docker Hub. It returns other hosts
// unchanged.
func aliasOf(host string) string {
	if host == name.DefaultRegistry {
		return dockerHub
	}
	return host
}

// serverKey returns the server name to pass to a credential helper.
func serverKey(host string) string {
	if host == name.DefaultRegistry {
		return hubKey
	}
	return host
}

func (e authEntry) config() (authn.AuthConfig, error) {
	c := authn.AuthConfig{
		Username: e.Username, Password: e.Password,
		IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken,
	}
	if e.Auth == "" {
		return c, nil
	}
	text, err := base64.StdEncoding.DecodeString(e.Auth)
	if err != nil {
		return c, errors.New("auth is not base64")
	}
	user, password, ok := strings.Cut(string(text), ":")
	if !ok || user == "" {
		return c, errors.New("auth is not user:password")
	}
	c.Username, c.Password = user, strings.TrimRight(password, "\x00")
	return c, nil
}

// runHelper runs docker-credential-NAME get, by the protocol of the project
// docker-credential-helpers. If the helper has no credentials for the server,
// runHelper returns empty ones.
func runHelper(ctx context.Context, helper, server string) (authn.AuthConfig, error) {
	program := "docker-credential-" + helper
	if strings.ContainsAny(helper, "/\x00") {
		return authn.AuthConfig{}, fmt.Errorf("credential helper %q: not a name", printable(helper))
	}
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	var out, stderr limitedBuffer
	cmd := exec.CommandContext(ctx, program, "get")
	cmd.Stdin = strings.NewReader(server)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &stderr, helperWait
	if err := cmd.Run(); err != nil {
		text := printable(out.text.String() + " " + stderr.text.String())
		if strings.Contains(text, "credentials not found") {
			return authn.AuthConfig{}, nil
		}
		if text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return authn.AuthConfig{}, fmt.Errorf("credential helper %s: %w", program, err)
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(out.text.Bytes(), &answer); err != nil {
		return authn.AuthConfig{}, fmt.Errorf("credential helper %s: parse answer: %w", program, err)
	}
	if answer.Username == "<token>" {
		return authn.AuthConfig{IdentityToken: answer.Secret}, nil
	}
	return authn.AuthConfig{Username: answer.Username, Password: answer.Secret}, nil
}

// limitedBuffer stores at most maxHelperText bytes; a Write beyond that returns
// an error. The buffer is not embedded, because its ReadFrom would bypass the
// limit.
type limitedBuffer struct{ text bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.text.Len()+len(p) > maxHelperText {
		return 0, fmt.Errorf("more than %d bytes of output", maxHelperText)
	}
	return b.text.Write(p)
}
