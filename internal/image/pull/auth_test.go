package pull

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func writeFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func base64Of(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// installHelper adds a credential helper to PATH that runs the shell script.
func installHelper(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "docker-credential-"+name), "#!/bin/sh\n"+script, 0o700)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

const echoHelper = `read server; echo "{\"ServerURL\":\"$server\",\"Username\":\"user of $server\",\"Secret\":\"secret\"}"`

// TestP1CredentialsAreFound looks up credentials in every file, variable and
// helper.
func TestP1CredentialsAreFound(t *testing.T) {
	auths := func(key, user string) string {
		return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, key, base64Of(user+":pw"))
	}
	for _, row := range []struct {
		name, host string
		files      map[string]string // by path in the home folder
		env        map[string]string // the test replaces $HOME by the home folder
		helper     string
		user       string // the wanted user or token
	}{
		{"docker", "r.io", map[string]string{".docker/config.json": auths("r.io", "u")}, nil, "", "u"},
		{"DOCKER_CONFIG", "r.io", map[string]string{"d/config.json": auths("r.io", "u"), ".docker/config.json": auths("r.io", "x")},
			map[string]string{"DOCKER_CONFIG": "$HOME/d"}, "", "u"},
		{"DOCKER_AUTH_CONFIG", "r.io", nil, map[string]string{"DOCKER_AUTH_CONFIG": auths("r.io", "u")}, "", "u"},
		{"REGISTRY_AUTH_FILE", "r.io", map[string]string{"a.json": auths("r.io", "u"), ".docker/config.json": auths("r.io", "x")},
			map[string]string{"REGISTRY_AUTH_FILE": "$HOME/a.json"}, "", "u"},
		{"podman, runtime folder", "r.io", map[string]string{"run/containers/auth.json": auths("r.io", "u")}, nil, "", "u"},
		{"podman, configuration folder", "r.io", map[string]string{".config/containers/auth.json": auths("r.io", "u")}, nil, "", "u"},
		{"XDG_CONFIG_HOME", "r.io", map[string]string{"c/containers/auth.json": auths("r.io", "u")},
			map[string]string{"XDG_CONFIG_HOME": "$HOME/c"}, "", "u"},
		{"docker's file without the registry does not hide podman's", "r.io", map[string]string{
			".docker/config.json": `{"detachKeys":"x"}`, ".config/containers/auth.json": auths("r.io", "u")}, nil, "", "u"},
		{"podman's file without the registry does not hide docker's", "r.io", map[string]string{
			".docker/config.json": auths("r.io", "u"), "run/containers/auth.json": auths("other.io", "x")}, nil, "", "u"},
		{"namespace", "r.io", map[string]string{".config/containers/auth.json": `{"auths":{"r.io":{"auth":"` + base64Of("x:y") +
			`"},"r.io/org":{"auth":"` + base64Of("u:pw") + `"},"r.io/organisation":{"auth":"` + base64Of("z:y") + `"}}}`}, nil, "", "u"},
		{"old URL", "r.io", map[string]string{".docker/config.json": auths("https://r.io/v1/", "u")}, nil, "", "u"},
		{"Docker Hub", "index.docker.io", map[string]string{".docker/config.json": auths(hubKey, "u")}, nil, "", "u"},
		{"Docker Hub by podman", "index.docker.io", map[string]string{".docker/config.json": auths("docker.io", "u")}, nil, "", "u"},
		{"user and password apart", "r.io", map[string]string{
			".docker/config.json": `{"auths":{"r.io":{"username":"u","password":"pw"}}}`}, nil, "", "u"},
		{"identity token", "r.io", map[string]string{".docker/config.json": `{"auths":{"r.io":{"identitytoken":"tok"}}}`}, nil, "", "tok"},
		{"credsStore", "r.io", map[string]string{".docker/config.json": `{"auths":{"r.io":{}},"credsStore":"fake"}`}, nil, echoHelper, "user of r.io"},
		{"credHelpers", "r.io", map[string]string{".docker/config.json": `{"credHelpers":{"r.io":"fake"},"credsStore":"none"}`}, nil, echoHelper, "user of r.io"},
		{"credHelpers of podman", "r.io", map[string]string{"run/containers/auth.json": `{"credHelpers":{"r.io":"fake"}}`}, nil, echoHelper, "user of r.io"},
		{"Docker Hub by helper", "index.docker.io", map[string]string{".docker/config.json": `{"credsStore":"fake"}`}, nil, echoHelper, "user of " + hubKey},
		{"helper's token", "r.io", map[string]string{".docker/config.json": `{"credsStore":"fake"}`}, nil,
			`echo '{"Username":"<token>","Secret":"tok"}'`, "tok"},
		{"helper without the registry", "r.io", map[string]string{
			".docker/config.json": `{"credsStore":"fake","auths":{"r.io":{"auth":"` + base64Of("u:pw") + `"}}}`}, nil,
			`echo "credentials not found in native keychain"; exit 1`, "u"},
		{"none", "r.io", nil, nil, "", ""},
		{"only others", "r.io", map[string]string{".docker/config.json": auths("sr.io", "x")}, nil, "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			home := isolateHome(t)
			for path, text := range row.files {
				writeFile(t, filepath.Join(home, path), text, 0o600)
			}
			for k, v := range row.env {
				t.Setenv(k, strings.ReplaceAll(v, "$HOME", home))
			}
			if row.helper != "" {
				installHelper(t, "fake", row.helper)
			}
			c, err := (&keychain{}).lookup(t.Context(), row.host, "org/app")
			if err != nil || c.Username+c.IdentityToken != row.user {
				t.Errorf("got %+v, %v, want %s", c, err, row.user)
			}
		})
	}
}

// TestP1BrokenCredentialsAreReported pulls with credentials that cannot be read.
// Resolve reports the reason in a notice, and again in its error if the registry
// refuses the request.
func TestP1BrokenCredentialsAreReported(t *testing.T) {
	for _, row := range []struct{ name, file, helper, text string }{
		{"no such helper", `{"credsStore":"missing"}`, "", "docker-credential-missing"},
		{"helper fails", `{"credsStore":"fake"}`, `echo "keyring is locked"; exit 1`, "keyring is locked"},
		{"helper with an escape sequence", `{"credsStore":"fake"}`, `printf 'bad\033[2J' >&2; exit 1`, "bad [2J"},
		{"helper without JSON", `{"credsStore":"fake"}`, `echo hello`, "parse answer"},
		{"helper with endless output", `{"credsStore":"fake"}`, `exec yes`, "credential helper"},
		{"helper in a folder", `{"credsStore":"../../fake"}`, "", "not a name"},
		{"no JSON", `{`, "", "config.json"},
		{"no base64", `{"auths":{"127.0.0.1":{"auth":"!"}}}`, "", "base64"},
		{"no colon", `{"auths":{"127.0.0.1":{"auth":"` + base64Of("user") + `"}}}`, "", "user:password"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, o := newServer(t), testOptions(t)
			ref := s.push(t, "app:1", makeImage(t, 10))
			file := strings.ReplaceAll(row.file, "127.0.0.1", s.host())
			writeFile(t, filepath.Join(os.Getenv("HOME"), ".docker/config.json"), file, 0o600)
			if row.helper != "" {
				installHelper(t, "fake", row.helper)
			}
			var notices []string
			o.Notice = func(s string) { notices = append(notices, s) }
			s.injectFault(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
				w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
				w.WriteHeader(http.StatusUnauthorized)
			})
			_, err := Resolve(t.Context(), ref, o)
			expectError(t, err, row.text)
			if !errors.Is(err, ErrUnauthorized) {
				t.Errorf("error %v", err)
			}
			if len(notices) == 0 || !strings.Contains(notices[0], row.text) {
				t.Errorf("notices %q", notices)
			}
		})
	}
}

// TestP1HelperThatHangsEndsWithTheContext runs a helper that hangs, and whose own
// child keeps the pipes open.
func TestP1HelperThatHangsEndsWithTheContext(t *testing.T) {
	home := isolateHome(t)
	writeFile(t, filepath.Join(home, ".docker/config.json"), `{"credsStore":"fake"}`, 0o600)
	installHelper(t, "fake", "sleep 3 & sleep 3")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := (&keychain{}).lookup(ctx, "r.io", "x"); err == nil || time.Since(start) > time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

// authServer requires credentials by the schemes of registries.
type authServer struct {
	mu     sync.Mutex
	tokens int
}

func (g *authServer) basic(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if user, password, _ := r.BasicAuth(); user != "u" || password != "pw" {
		w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	next.ServeHTTP(w, r)
}

// bearer requires tokens, and issues tokens that are valid for three requests.
func (g *authServer) bearer(needsUser bool) handler {
	left := map[string]int{}
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		g.mu.Lock()
		defer g.mu.Unlock()
		if r.URL.Path == "/token" {
			user, password, _ := r.BasicAuth()
			if err := r.ParseForm(); err != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			ok := user == "u" && password == "pw" || r.Form.Get("refresh_token") == "tok"
			if needsUser && !ok || r.Form.Get("service") != "registry, of ours" || !strings.Contains(r.Form.Get("scope"), "repository:app:pull") {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			g.tokens++
			token := fmt.Sprint("token-", g.tokens)
			left[token] = 3
			_, _ = fmt.Fprintf(w, `{"access_token":%q}`, token)
			return
		}
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if left[token]--; left[token] < 0 {
			w.Header().Add("WWW-Authenticate", "Negotiate")
			w.Header().Add("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="registry, of ours",scope="repository:app:pull"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	}
}

func TestP1RegistriesThatRequireCredentials(t *testing.T) {
	for _, row := range []struct {
		name  string
		fault func(g *authServer) handler
		file  string
		fails bool
	}{
		{"basic", func(g *authServer) handler { return g.basic }, `{"auths":{"HOST":{"auth":"` + base64Of("u:pw") + `"}}}`, false},
		{"basic, wrong password", func(g *authServer) handler { return g.basic }, `{"auths":{"HOST":{"auth":"` + base64Of("u:no") + `"}}}`, true},
		{"basic, anonymous", func(g *authServer) handler { return g.basic }, `{}`, true},
		{"bearer", func(g *authServer) handler { return g.bearer(true) }, `{"auths":{"HOST":{"auth":"` + base64Of("u:pw") + `"}}}`, false},
		{"bearer, identity token", func(g *authServer) handler { return g.bearer(true) }, `{"auths":{"HOST":{"identitytoken":"tok"}}}`, false},
		{"bearer, anonymous", func(g *authServer) handler { return g.bearer(false) }, `{}`, false},
		{"bearer, anonymous refused", func(g *authServer) handler { return g.bearer(true) }, `{}`, true},
		{"required only for content", func(g *authServer) handler {
			return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if r.URL.Path == "/v2/" {
					next.ServeHTTP(w, r)
					return
				}
				g.basic(w, r, next)
			}
		}, `{"auths":{"HOST":{"auth":"` + base64Of("u:pw") + `"}}}`, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, o := newServer(t), testOptions(t)
			want := makeImage(t, 1000, 2000, 3000, 4000)
			ref := s.push(t, "app:1", want)
			writeFile(t, filepath.Join(os.Getenv("HOME"), ".docker/config.json"), strings.ReplaceAll(row.file, "HOST", s.host()), 0o600)
			s.injectFault(row.fault(&authServer{}))
			img, err := Resolve(t.Context(), ref, o)
			if row.fails {
				if !errors.Is(err, ErrUnauthorized) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			expectLayers(t, img, want)
			if err := img.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestP1CredentialsStayWithTheirRegistry follows a redirect to another host, which
// must not receive credentials.
func TestP1CredentialsStayWithTheirRegistry(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	want := makeImage(t, 1000)
	data := compressedLayer(t, want, 0)
	var leaked []string
	other := newServer(t)
	other.injectFault(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		leaked = append(leaked, r.Header.Get("Authorization"))
		serveRange(w, r, data, len(data))
	})
	ref := s.push(t, "app:1", want)
	writeFile(t, filepath.Join(os.Getenv("HOME"), ".docker/config.json"), `{"auths":{"`+s.host()+`":{"auth":"`+base64Of("u:pw")+`"}}}`, 0o600)
	img := mustResolve(t, ref, o)
	g := &authServer{}
	s.injectFault(onBlob(img.Layers[0], func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		g.basic(w, r, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL+"/storage", http.StatusTemporaryRedirect)
		}))
	}))
	expectLayers(t, img, want)
	if len(leaked) != 1 || leaked[0] != "" {
		t.Errorf("the storage received %q", leaked)
	}
}
