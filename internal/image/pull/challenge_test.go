package pull

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestChallenges(t *testing.T) {
	for _, row := range []struct {
		headers []string
		want    string // scheme and realm of the ones to answer, in order
	}{
		{[]string{`Bearer realm="https://a/t",service="x, y"`}, "bearer https://a/t"},
		{[]string{`Basic realm="x", Bearer realm="https://a/t"`}, "bearer https://a/t, basic x"},
		{[]string{`Basic realm="x"`, `Bearer realm="https://a/t"`}, "bearer https://a/t, basic x"},
		{[]string{`Negotiate`, `Basic realm="x"`}, "basic x"},
		{[]string{`Negotiate, NTLM TlRMTVNTUAAC==, Bearer scope="a",realm="https://a/t"`}, "bearer https://a/t"},
		{[]string{`Negotiate oYG2==,Basic realm=x`}, "basic x"},
		{[]string{`bEARER  realm = "https://a/t" ,  service = "reg"`}, "bearer https://a/t"},
		{[]string{`Bearer service="r" , REALM="https://a/t"`}, "bearer https://a/t"},
		{[]string{`Bearer realm=https://a/t?x=1,service=reg`}, "bearer https://a/t?x=1"},
		{[]string{`Bearer realm="https://a/t",realm="https://evil/t"`}, "bearer https://a/t"},
		{[]string{`Bearer realm="a\"b"`}, `bearer a"b`},
		{[]string{`Bearer realm="never closed`}, "bearer never closed"},
		{[]string{`Bearer service="no realm"`, `Basic`}, "basic "},
		{[]string{`Digest realm="x"`}, ""},
		{[]string{`realm="x"`, `"`, `=`, `,,`}, "basic "}, // no challenge at all
		{nil, "basic "},
		{[]string{strings.Repeat("x", maxChallenge+1)}, "basic "},
		{[]string{strings.Repeat("x,", maxChallenges) + `Basic realm="too far"`}, ""},
	} {
		var got []string
		for _, c := range supported(parseChallenges(row.headers)) {
			got = append(got, c.scheme+" "+c.parameters["realm"])
		}
		if s := strings.Join(got, ", "); s != row.want {
			t.Errorf("%.80q: got %s, want %s", row.headers, s, row.want)
		}
	}
}

func TestScopes(t *testing.T) {
	const own = "repository:a/b:pull"
	for scope, want := range map[string][]string{
		"":                               {own},
		own:                              {own},
		"registry:catalog:*":             {"registry:catalog:*", own},
		"repository:a/b:pull,push x:y:z": {"repository:a/b:pull,push", "x:y:z", own},
	} {
		if got := scopes("a/b", challenge{parameters: map[string]string{"scope": scope}}); !slices.Equal(got, want) {
			t.Errorf("%q: got %q", scope, got)
		}
	}
}

func TestTokenAnswers(t *testing.T) {
	for answer, want := range map[string]string{
		`{"token":"T"}`:                              "T",
		`{"access_token":"T"}`:                       "T",
		`{"token":"","access_token":"T"}`:            "T",
		`{"token":null,"access_token":"T"}`:          "T",
		`{"token":"T","expires_in":"300"}`:           "T",
		`{"token":"T","expires_in":300.5}`:           "T",
		`{"token":"T","expires_in":{},"issued_at":}`: "not a JSON object",
		`{"token":"T","issued_at":"yesterday"}`:      "T",
		`{"Token":"secret of a cloud"}`:              "no token",
		`{"token":7}`:                                "no token",
		`{"token":"a\r\nX: y"}`:                      "invalid characters",
		`{}`:                                         "no token",
		`[]`:                                         "not a JSON object",
		`<html>`:                                     "not a JSON object",
	} {
		a, err := parseToken([]byte(answer))
		if got := fmt.Sprint(a.token, err); err == nil && a.token != want || err != nil && !strings.Contains(got, want) {
			t.Errorf("%s: got %s", answer, got)
		}
	}
}

func TestRealms(t *testing.T) {
	for _, row := range []struct {
		realm string
		plain bool
		fails bool
	}{
		{"https://a/t", false, false},
		{" https://a/t ", false, false},
		{"http://a/t", true, false},
		{"http://a/t", false, true},
		{"file:///etc/passwd", true, true},
		{"a/t", true, true},
		{"://", true, true},
		{"https:///t", false, true},
	} {
		u, err := realmURL(row.realm, row.plain)
		if (err != nil) != row.fails {
			t.Errorf("%s: %v, %v", row.realm, u, err)
		}
	}
	if u, err := realmURL("https://u:pw@a/t#x", false); err != nil || u.String() != "https://a/t" {
		t.Errorf("got %v, %v", u, err)
	}
}

func FuzzChallenge(f *testing.F) {
	seeds := []string{`Bearer realm="https://a/b",service="x, y",scope="a"`, `Basic realm=x`, `Bearer realm="a\"b`, `Bearer a=,b`, ``,
		`Negotiate a==, Basic realm = "x" , Bearer realm="https://a/t"`}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		challenges := parseChallenges([]string{header})
		if len(challenges) > maxChallenges {
			t.Errorf("%q gives %d challenges", header, len(challenges))
		}
		for _, c := range challenges {
			if c.scheme == "" || c.scheme != strings.ToLower(c.scheme) {
				t.Errorf("%q gives %+v", header, c)
			}
		}
	})
}
