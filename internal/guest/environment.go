package guest

import "strings"

// UniqueEnv returns env, whose entries have the form NAME=VALUE, with each name once. If
// a name occurs several times, the last entry takes the place of the first.
func UniqueEnv(env []string) []string {
	var out []string
	at := map[string]int{}
	for _, v := range env {
		name, _, _ := strings.Cut(v, "=")
		if i, ok := at[name]; ok {
			out[i] = v
			continue
		}
		at[name] = len(out)
		out = append(out, v)
	}
	return out
}
