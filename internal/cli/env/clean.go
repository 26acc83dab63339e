package env

import (
	"reflect"
	"strings"
	"unicode"
)

// Clean returns text with a space in the place of each control character. Images,
// guests and registries choose the text of many messages; a terminal would obey the
// control characters in it.
func Clean(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) { // C0, DEL and C1; Map replaces bytes that are not UTF-8 by U+FFFD
			return ' '
		}
		return r
	}, text)
}

// CleanArgs returns the arguments of a format with clean texts. Numbers stay numbers.
func CleanArgs(args []any) []any {
	out := make([]any, len(args))
	for i, arg := range args {
		out[i] = arg
		if err, ok := arg.(error); ok {
			out[i] = Clean(err.Error())
		} else if v := reflect.ValueOf(arg); v.Kind() == reflect.String {
			out[i] = Clean(v.String())
		}
	}
	return out
}
