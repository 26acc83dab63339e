package pull

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// startHandler starts another server of a test.
func startHandler(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// requireToken returns a handler that requires the token T, and sends the
// challenges to other requests.
func requireToken(challenges ...string) handler {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Header.Get("Authorization") == "Bearer T" {
			next.ServeHTTP(w, r)
			return
		}
		for _, c := range challenges {
			w.Header().Add("WWW-Authenticate", c)
		}
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// TestP1ChallengesOfRegistries pulls without credentials by challenges in all the
// forms of RFC 9110. The token server is at another port of this host.
func TestP1ChallengesOfRegistries(t *testing.T) {
	want := makeImage(t, 1000)
	for _, row := range []struct {
		name, answer string
		challenges   []string
	}{
		{"list", `{"token":"T"}`, []string{`Basic realm="x", Bearer realm="REALM",service="reg"`}},
		{"two headers", `{"token":"T"}`, []string{`Basic realm="x"`, `Bearer realm="REALM",service="reg"`}},
		{"unknown schemes first", `{"token":"T"}`, []string{"Negotiate", `NTLM abc==, Bearer realm="REALM"`}},
		{"spaces", `{"token":"T"}`, []string{`Bearer realm = "REALM" ,  service = "reg"`}},
		{"order", `{"token":"T"}`, []string{`Bearer scope="repository:app:pull",service="reg",realm="REALM"`}},
		{"age as text", `{"access_token":"T","expires_in":"300"}`, []string{`Bearer realm="REALM"`}},
		{"age with a fraction", `{"token":"T","expires_in":300.0}`, []string{`Bearer realm="REALM"`}},
	} {
		t.Run(row.name, func(t *testing.T) {
			tokens := startHandler(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, row.answer) })
			s, o := newServer(t), testOptions(t)
			ref := s.push(t, "app:1", want)
			for i, c := range row.challenges {
				row.challenges[i] = strings.ReplaceAll(c, "REALM", tokens.URL+"/token")
			}
			s.injectFault(requireToken(row.challenges...))
			expectLayers(t, mustResolve(t, ref, o), want)
		})
	}
}

// TestP1BasicAfterBearer has a token server that is missing, and a registry that also
// takes the password itself.
func TestP1BasicAfterBearer(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	want := makeImage(t, 1000)
	ref := s.push(t, "app:1", want)
	writeFile(t, filepath.Join(os.Getenv("HOME"), ".docker/config.json"), `{"auths":{"`+s.host()+`":{"auth":"`+base64Of("u:pw")+`"}}}`, 0o600)
	s.injectFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.URL.Path == "/none" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Add("WWW-Authenticate", `Bearer realm="`+s.URL+`/none"`)
		(&authServer{}).basic(w, r, next)
	})
	expectLayers(t, mustResolve(t, ref, o), want)
}

// TestP1BasicInsteadOfBearer answers a token with a basic challenge, as Harbor does if
// the token does not suffice (goharbor/harbor#18856).
func TestP1BasicInsteadOfBearer(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	want := makeImage(t, 1000)
	ref := s.push(t, "app:1", want)
	writeFile(t, filepath.Join(os.Getenv("HOME"), ".docker/config.json"), `{"auths":{"`+s.host()+`":{"auth":"`+base64Of("u:pw")+`"}}}`, 0o600)
	s.injectFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		switch {
		case r.URL.Path == "/token":
			_, _ = io.WriteString(w, `{"token":"T"}`)
		case r.Header.Get("Authorization") != "":
			(&authServer{}).basic(w, r, next)
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	expectLayers(t, mustResolve(t, ref, o), want)
}

// TestP1TokenIsRenewedWithItsScope issues tokens that are good for one request, by
// challenges without a scope.
func TestP1TokenIsRenewedWithItsScope(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	want := makeImage(t, 1000, 2000, 3000)
	ref := s.push(t, "app:1", want)
	var mu sync.Mutex
	good, issued := map[string]bool{}, 0
	s.injectFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/token" {
			issued++
			token := fmt.Sprint("T", issued)
			good[token] = r.FormValue("scope") == "repository:app:pull"
			_, _ = fmt.Fprintf(w, `{"token":%q}`, token)
			return
		}
		if token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "); good[token] {
			delete(good, token)
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	expectLayers(t, mustResolve(t, ref, o), want)
	if issued < 5 {
		t.Errorf("%d tokens", issued)
	}
}

// TestP1CredentialsAreNotRedirected has a token server that redirects to another
// host. Nothing of the user's may follow.
func TestP1CredentialsAreNotRedirected(t *testing.T) {
	for _, row := range []struct {
		name, auth string
		status     int
		text       string // of the error; "" if the pull succeeds
	}{
		{"identity token, 307", `{"identitytoken":"tok"}`, http.StatusTemporaryRedirect, "refuse to send the identity token on to"},
		{"identity token, 302", `{"identitytoken":"tok"}`, http.StatusFound, "refuse to send the identity token on to"},
		{"password, 307", `{"auth":"` + base64Of("u:pw") + `"}`, http.StatusTemporaryRedirect, ""},
		{"password, 302", `{"auth":"` + base64Of("u:pw") + `"}`, http.StatusFound, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			var leaked []string
			other := startHandler(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				leaked = append(leaked, r.Header.Get("Authorization")+string(body))
				_, _ = io.WriteString(w, `{"token":"T"}`)
			})
			tokens := startHandler(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, row.status) })
			s, o := newServer(t), testOptions(t)
			ref := s.push(t, "app:1", makeImage(t, 10))
			writeFile(t, filepath.Join(os.Getenv("HOME"), ".docker/config.json"), `{"auths":{"`+s.host()+`":`+row.auth+`}}`, 0o600)
			s.injectFault(requireToken(`Bearer realm="` + tokens.URL + `"`))
			_, err := Resolve(t.Context(), ref, o)
			if row.text == "" && err != nil {
				t.Error(err)
			}
			if row.text != "" {
				expectError(t, err, row.text, "get token from")
			}
			if s := strings.Join(leaked, ""); s != "" {
				t.Errorf("the other host received %q", s)
			}
		})
	}
}

// TestP1RefusalsAreExplained reads the error of a registry or a token server that
// refuses.
func TestP1RefusalsAreExplained(t *testing.T) {
	for _, row := range []struct {
		name, auth, kind, body string
		status                 int
		anonymous              bool
		text                   string
	}{
		{"Docker Hub, wrong password", `{"auth":"` + base64Of("u:no") + `"}`, "application/json",
			`{"details":"incorrect username or password"}`, 401, false, "answered 401 Unauthorized: incorrect username or password"},
		{"nothing sent", `{}`, "application/json", `{"errors":[{"code":"DENIED","message":"no","detail":{"a":1}}]}`, 403, true, `no: {"a":1}`},
		{"detail in words", `{}`, "", `{"errors":[{"code":"UNAUTHORIZED","message":"","detail":"try later"}]}`, 401, true, "UNAUTHORIZED: try later"},
		{"OAuth", `{"identitytoken":"x"}`, "", `{"error":"invalid_grant","error_description":"token is old"}`, 400, false, "invalid_grant: token is old"},
		{"plain text", `{}`, "text/plain; charset=utf-8", "too many\nrequests", 403, true, "too many requests"},
		{"web page", `{}`, "text/html", "<html>secret", 403, true, "answered 403 Forbidden"},
		{"other form", `{}`, "", `{"errors":"text"}`, 403, true, "answered 403 Forbidden"},
	} {
		t.Run(row.name, func(t *testing.T) {
			tokens := startHandler(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", row.kind)
				w.WriteHeader(row.status)
				_, _ = io.WriteString(w, row.body)
			})
			s, o := newServer(t), testOptions(t)
			ref := s.push(t, "app:1", makeImage(t, 10))
			writeFile(t, filepath.Join(os.Getenv("HOME"), ".docker/config.json"), `{"auths":{"`+s.host()+`":`+row.auth+`}}`, 0o600)
			s.injectFault(requireToken(`Bearer realm="` + tokens.URL + `"`))
			_, err := Resolve(t.Context(), ref, o)
			host := strings.TrimPrefix(tokens.URL, "http://")
			expectError(t, err, "get token from "+host, host+" answered", row.text)
			if errors.Is(err, ErrAnonymous) != row.anonymous || row.anonymous && !errors.Is(err, ErrUnauthorized) {
				t.Errorf("error %v: anonymous %v", err, !row.anonymous)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("error %v quotes a page", err)
			}
		})
	}
}
