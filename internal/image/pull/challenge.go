package pull

import (
	"slices"
	"strings"
)

const (
	// maxChallenge is the maximum length in bytes of a WWW-Authenticate header.
	maxChallenge = 8 << 10
	// maxChallenges is the maximum number of challenges to read of a response.
	maxChallenges = 16
)

// The authentication schemes that this package has, in the order of preference.
const (
	schemeBearer = "bearer"
	schemeBasic  = "basic"
)

// challenge is one challenge of a WWW-Authenticate header.
type challenge struct {
	scheme     string            // in lower case
	parameters map[string]string // the names are in lower case
}

// parseChallenges returns the challenges in WWW-Authenticate headers (RFC 9110,
// section 11.6.1). One header may have several. It skips text that does not match
// the grammar.
func parseChallenges(headers []string) []challenge {
	var out []challenge
	for _, s := range headers {
		if len(s) > maxChallenge {
			continue
		}
		for {
			if s = strings.TrimLeft(s, " \t,"); s == "" {
				break
			}
			var word string
			word, s = cutWord(s)
			value, isParameter := strings.CutPrefix(s, "=")
			switch {
			case isParameter:
				value, s = cutValue(strings.TrimLeft(value, " \t"))
				if len(out) > 0 {
					out[len(out)-1].set(strings.ToLower(word), value)
				}
			case word == "":
				s = s[1:] // a stray quote
			case len(out) == maxChallenges:
				return out
			default:
				out = append(out, challenge{strings.ToLower(word), map[string]string{}})
			}
		}
	}
	return out
}

// set adds a parameter. The first one of a name counts.
func (c challenge) set(name, value string) {
	if _, ok := c.parameters[name]; !ok && name != "" {
		c.parameters[name] = value
	}
}

// cutWord cuts a scheme or the name of a parameter off s, and the spaces after it.
func cutWord(s string) (word, rest string) {
	n := strings.IndexAny(s, " \t,=\"")
	if n < 0 {
		n = len(s)
	}
	return s[:n], strings.TrimLeft(s[n:], " \t")
}

// cutValue cuts a quoted string off s, or else all text up to a comma.
func cutValue(s string) (value, rest string) {
	if strings.HasPrefix(s, `"`) {
		return parseQuoted(s[1:])
	}
	value, rest, _ = strings.Cut(s, ",")
	return strings.TrimSpace(value), rest
}

// parseQuoted returns the string up to its closing quote, without backslashes,
// and the text after the quote.
func parseQuoted(s string) (value, rest string) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:]
		case '\\':
			if i++; i == len(s) {
				return b.String(), ""
			}
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}

// supported returns the challenges that this package can answer, the preferred
// ones first. A response without any challenge counts as one with a basic
// challenge.
func supported(challenges []challenge) []challenge {
	if len(challenges) == 0 {
		return []challenge{{scheme: schemeBasic}}
	}
	var out []challenge
	for _, scheme := range []string{schemeBearer, schemeBasic} {
		i := slices.IndexFunc(challenges, func(c challenge) bool {
			return c.scheme == scheme && (scheme != schemeBearer || c.parameters["realm"] != "")
		})
		if i >= 0 {
			out = append(out, challenges[i])
		}
	}
	return out
}
