package tarcopy

import "fmt"

// omissions counts the metadata and files that could not be created, by kind.
// Kinds are kept in the order of their first occurrence.
type omissions struct {
	kinds []string
	of    map[string]*omission
}

type omission struct {
	count int
	first string
}

// maxKinds limits the number of kinds, because a stream may contain any number
// of attribute names.
const maxKinds = 64

func (l *omissions) add(kind, name string) {
	if l.of == nil {
		l.of = map[string]*omission{}
	}
	if l.of[kind] == nil {
		if len(l.kinds) == maxKinds {
			kind = "others"
		}
		if l.of[kind] == nil {
			l.kinds, l.of[kind] = append(l.kinds, kind), &omission{first: name}
		}
	}
	l.of[kind].count++
}

func (l *omissions) report(note func(string)) {
	if note == nil {
		return
	}
	for _, kind := range l.kinds {
		of := l.of[kind]
		text := fmt.Sprintf("left out %s of %s", kind, quote(of.first))
		if of.count > 1 {
			text += fmt.Sprintf(" and %d more", of.count-1)
		}
		note(text)
	}
}
