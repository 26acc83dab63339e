package pull

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
)

// session is the way in which an endpoint authenticates its requests.
type session struct {
	client        *http.Client
	authorization string // of each request, "" if there is none
	known         bool   // the user's credentials were sent, to the endpoint or for a token
}

// newSession returns a session that sends authorization to the endpoint, and to no
// other host.
func (e *endpoint) newSession(authorization string, known bool) *session {
	rt := &credentialTransport{e.gate, serverOf(&url.URL{Scheme: e.scheme, Host: e.host}), authorization}
	return &session{&http.Client{Transport: rt, CheckRedirect: checkRedirect}, authorization, known}
}

// credentialTransport adds an Authorization header to the requests to one server. A
// request to another server, because of a redirect, has none.
type credentialTransport struct {
	base          http.RoundTripper
	server        string
	authorization string
}

// RoundTrip implements http.RoundTripper.
func (c *credentialTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Del("Authorization")
	if c.authorization != "" && serverOf(req.URL) == c.server {
		req.Header.Set("Authorization", c.authorization)
	}
	return c.base.RoundTrip(req)
}

// serverOf returns the scheme, the host and the port of u.
func serverOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

func basicAuthorization(c authn.AuthConfig) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Username+":"+c.Password))
}

// authenticate returns a session for one of the challenges of a response. It
// returns old if there is nothing to send that old did not send.
func (e *endpoint) authenticate(ctx context.Context, old *session, challenges []challenge) (*session, error) {
	credentials, err := e.lookupCredentials(ctx)
	if err != nil {
		return nil, err
	}
	var failure error
	for _, c := range supported(challenges) {
		authorization, err := e.answer(ctx, c, credentials)
		if err != nil {
			failure = e.refusal(err, credentials != authn.AuthConfig{})
			continue
		}
		if authorization != "" && authorization != old.authorization {
			return e.newSession(authorization, credentials != authn.AuthConfig{}), nil
		}
	}
	return old, failure
}

// answer returns the Authorization header that answers a challenge, or "" if there
// are no credentials for it.
func (e *endpoint) answer(ctx context.Context, c challenge, credentials authn.AuthConfig) (string, error) {
	if c.scheme == schemeBasic {
		if credentials.Username == "" {
			return "", nil
		}
		return basicAuthorization(credentials), nil
	}
	if credentials.RegistryToken != "" {
		return "Bearer " + credentials.RegistryToken, nil
	}
	realm, err := realmURL(c.parameters["realm"], e.scheme == "http")
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, e.timeout, errIncomplete(e.timeout))
	defer cancel()
	t := tokenRequest{realm, c.parameters["service"], scopes(e.repo, c), credentials, e.gate}
	if e.refreshToken != "" {
		t.credentials.IdentityToken = e.refreshToken
	}
	answer, err := t.send(ctx)
	if err != nil {
		return "", err
	}
	if t.credentials.IdentityToken != "" {
		e.refreshToken = answer.refreshToken
	}
	return "Bearer " + answer.token, nil
}

// lookupCredentials returns the credentials for the endpoint. If they cannot be
// read, it reports the reason and returns none.
func (e *endpoint) lookupCredentials(ctx context.Context) (authn.AuthConfig, error) {
	credentials, err := e.keychain.lookup(ctx, e.host, e.repo)
	if err == nil {
		e.credentialsErr.Store(nil)
		return credentials, nil
	}
	if ctx.Err() != nil {
		return authn.AuthConfig{}, context.Cause(ctx)
	}
	if e.credentialsErr.Swap(&err) == nil {
		e.notice(fmt.Sprintf("%v: continuing without credentials", err))
	}
	return authn.AuthConfig{}, nil
}
