package pull

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode"
)

// errorBody has the texts of an error in the forms of the OCI distribution
// specification ("Error Codes"), the Docker Engine API, Docker Hub's token server
// and OAuth 2.0 (RFC 6749, section 5.2).
type errorBody struct {
	Message     json.RawMessage `json:"message"`
	Details     json.RawMessage `json:"details"`
	Error       json.RawMessage `json:"error"`
	Description json.RawMessage `json:"error_description"`
	Errors      []struct {
		Code    json.RawMessage `json:"code"`
		Message json.RawMessage `json:"message"`
		Detail  json.RawMessage `json:"detail"`
	} `json:"errors"`
}

// errorText returns the texts in the body of an error. It returns "" for bodies
// that are neither JSON nor plain text, such as web pages.
func errorText(contentType string, body []byte) string {
	var doc errorBody
	if json.Unmarshal(body, &doc) != nil {
		if strings.HasPrefix(contentType, "text/plain") && !bytes.HasPrefix(bytes.TrimSpace(body), []byte("<")) {
			return printable(string(body))
		}
		return ""
	}
	var texts []string
	add := func(separator string, values ...json.RawMessage) {
		var parts []string
		for _, v := range values {
			if text := plainText(v); text != "" {
				parts = append(parts, text)
			}
		}
		if len(parts) > 0 {
			texts = append(texts, strings.Join(parts, separator))
		}
	}
	add(": ", doc.Message, doc.Details)
	add(": ", doc.Error, doc.Description)
	for _, e := range doc.Errors {
		if plainText(e.Message) == "" {
			e.Message = e.Code
		}
		add(": ", e.Message, e.Detail)
	}
	return printable(strings.Join(texts, "; "))
}

// plainText returns a JSON string without its quotes, other values as JSON, and ""
// for values that say nothing.
func plainText(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return strings.TrimSpace(s)
	}
	switch s = string(v); s {
	case "{}", "[]":
		return ""
	}
	return s
}

// maxText is the maximum length in runes of untrusted text in a message.
const maxText = 300

// printable returns untrusted text in a form that is safe for one line of a
// terminal. It replaces characters that are not printable by spaces, and truncates
// long text.
func printable(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > maxText {
			b.WriteString("…")
			break
		}
		if !unicode.IsPrint(r) {
			r = ' '
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}
