package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A line is one line of text of a comment or a document.
type line struct {
	path   string
	number int
	text   string
}

// A rule counts the matches of a pattern. The rate is matches per 1,000
// words. atLeast turns the limit from a maximum to a minimum.
type rule struct {
	name    string
	pattern *regexp.Regexp
	limit   float64
	atLeast bool
}

// rules returns the patterns that are counted, with their limits.
func rules() []rule {
	return []rule{
		{"free relatives (what is, whatever)", regexp.MustCompile(`(?i)\bwhat(ever|'s)?\b`), 0.5, false},
		{"told/tells/says", regexp.MustCompile(`(?i)\b(told|tells|says)\b`), 0.5, false},
		{"nobody/whoever/those who", regexp.MustCompile(`(?i)\b(nobody|whoever|those who|somebody)\b`), 0.2, false},
		{"if", regexp.MustCompile(`(?i)\bif\b`), 2, true},
	}
}

// minWords is the number of words below which no minimum is asked for.
const minWords = 10_000

// A result is the count of one kind of text.
type result struct {
	words  int
	counts []int // one for each rule
	places []string
}

func count(lines []line) result {
	rs := rules()
	r := result{counts: make([]int, len(rs))}
	for _, l := range lines {
		r.words += len(strings.Fields(l.text))
		for i, rule := range rs {
			found := rule.pattern.FindAllString(l.text, -1)
			r.counts[i] += len(found)
			if len(found) > 0 && !rule.atLeast {
				r.places = append(r.places, fmt.Sprintf("%s:%d: %s", l.path, l.number, strings.TrimSpace(l.text)))
			}
		}
	}
	slices.Sort(r.places)
	r.places = slices.Compact(r.places)
	return r
}

func (r result) rate(i int) float64 { return float64(r.counts[i]) * 1000 / float64(max(1, r.words)) }

// faults returns a line for each rate that is beyond its limit.
func (r result) faults() []string {
	var out []string
	for i, rule := range rules() {
		switch rate := r.rate(i); {
		case rule.atLeast && r.words >= minWords && rate < rule.limit:
			out = append(out, fmt.Sprintf("%q: %.2f per 1,000 words, at least %.1f are wanted", rule.name, rate, rule.limit))
		case !rule.atLeast && rate > rule.limit:
			out = append(out, fmt.Sprintf("%q: %.2f per 1,000 words, at most %.1f are allowed; -v prints the places", rule.name, rate, rule.limit))
		}
	}
	return out
}

// String returns the rates on one line.
func (r result) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%d words", r.words)
	for i, rule := range rules() {
		fmt.Fprintf(&out, "; %s %.2f", rule.name, r.rate(i))
	}
	return out.String()
}
