package pull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
)

// maxToken is the maximum number of bytes of a token server's answer.
const maxToken = 64 << 10

// tokenRequest asks a token server for a token to read one repository (the
// specifications "Token Authentication" and "OAuth2 Token Authentication" of the
// project distribution).
type tokenRequest struct {
	realm       *url.URL
	service     string
	scopes      []string
	credentials authn.AuthConfig
	base        http.RoundTripper
}

// tokenAnswer is the answer of a token server. It leaves out the age of the
// token: the registry's answer 401 ends its use.
type tokenAnswer struct {
	token        string
	refreshToken string // replaces the identity token; "" if it stays
}

// realmURL returns the address of the token server in a challenge. Plain http is
// only for registries that use it themselves.
func realmURL(realm string, plain bool) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(realm))
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("registry names the token server %q, which is not a URL", printable(realm))
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !plain) {
		return nil, fmt.Errorf("refuse token server %s: it uses %s, the registry https", printable(u.Host), printable(u.Scheme))
	}
	u.User, u.Fragment = nil, ""
	return u, nil
}

// send returns the server's answer. All errors name the server.
func (t *tokenRequest) send(ctx context.Context) (tokenAnswer, error) {
	answer, err := t.post(ctx)
	if e, ok := errors.AsType[*statusError](err); ok && (e.status == http.StatusNotFound || e.status == http.StatusMethodNotAllowed) {
		// Not all token servers have the OAuth2 way.
		answer, err = t.get(ctx)
	}
	if err != nil {
		if c, ok := errors.AsType[*slowError](context.Cause(ctx)); ok {
			err = c
		}
		return answer, fmt.Errorf("get token from %s: %w", printable(t.realm.Host), classify(err))
	}
	return answer, nil
}

// post exchanges an identity token. Without one it is get.
func (t *tokenRequest) post(ctx context.Context) (tokenAnswer, error) {
	if t.credentials.IdentityToken == "" {
		return t.get(ctx)
	}
	form := url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {t.credentials.IdentityToken},
		"client_id": {userAgent}, "scope": {strings.Join(t.scopes, " ")},
	}
	if t.service != "" {
		form.Set("service", t.service)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.realm.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return tokenAnswer{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return t.do(&http.Client{Transport: t.base, CheckRedirect: t.checkPostRedirect}, req)
}

// checkPostRedirect refuses redirects to another server, because it would receive
// the identity token.
func (t *tokenRequest) checkPostRedirect(req *http.Request, via []*http.Request) error {
	if serverOf(req.URL) != serverOf(t.realm) {
		return &redirectError{"refuse to send the identity token on to " + printable(req.URL.Host)}
	}
	return checkRedirect(req, via)
}

func (t *tokenRequest) get(ctx context.Context) (tokenAnswer, error) {
	u := *t.realm
	query := u.Query()
	query["scope"] = t.scopes
	if t.service != "" {
		query.Set("service", t.service)
	}
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return tokenAnswer{}, err
	}
	rt := t.base
	if t.credentials.Username != "" {
		rt = &credentialTransport{t.base, serverOf(t.realm), basicAuthorization(t.credentials)}
	}
	return t.do(&http.Client{Transport: rt, CheckRedirect: checkRedirect}, req)
}

func (t *tokenRequest) do(client *http.Client, req *http.Request) (tokenAnswer, error) {
	resp, err := client.Do(req)
	if err != nil {
		return tokenAnswer{}, err
	}
	if err := checkStatus(resp, http.StatusOK); err != nil {
		return tokenAnswer{}, err
	}
	defer resp.Body.Close()
	data, err := readAll(resp.Body, maxToken)
	if err != nil {
		return tokenAnswer{}, fmt.Errorf("read answer: %w", err)
	}
	return parseToken(data)
}

// parseToken parses the answer of a token server. It reads no other fields than
// the tokens, and only in their exact spelling: a metadata service of a cloud
// answers with a secret called Token.
func parseToken(data []byte) (a tokenAnswer, err error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return a, errors.New("its answer is not a JSON object")
	}
	for _, f := range []struct {
		key string
		to  *string
	}{{"token", &a.token}, {"access_token", &a.token}, {"refresh_token", &a.refreshToken}} {
		var text string
		if fields[f.key] == nil || json.Unmarshal(fields[f.key], &text) != nil || text == "" {
			continue
		}
		if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return a, fmt.Errorf("its %s has invalid characters", f.key)
		}
		*f.to = text
	}
	if a.token == "" {
		return a, errors.New("its answer has no token")
	}
	return a, nil
}

// scopes returns the scopes to request: those of the challenge, because some token
// servers read only the first one, and the one to pull the repository.
func scopes(repo string, c challenge) []string {
	out := strings.Fields(c.parameters["scope"])
	if own := "repository:" + repo + ":pull"; !slices.Contains(out, own) {
		out = append(out, own)
	}
	return out
}
