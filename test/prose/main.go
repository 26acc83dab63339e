// Prose counts the words of comments and documents that make plain technical
// English hard to read, per 1,000 words, and fails when there are more of them
// than the limits below allow.
//
//	go run ./test/prose [-v] [FOLDER...]
//
// With -v it prints each place. The default is the whole tree.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	verbose := flag.Bool("v", false, "print each place that counts")
	flag.Parse()
	folders := flag.Args()
	if len(folders) == 0 {
		folders = []string{"."}
	}
	over := false
	for _, kind := range []struct {
		name string
		read func(folders []string) ([]line, error)
	}{{"comments", comments}, {"documents", documents}} {
		lines, err := kind.read(folders)
		if err != nil {
			fmt.Fprintln(os.Stderr, "prose:", err)
			os.Exit(1)
		}
		r := count(lines)
		if *verbose {
			for _, p := range r.places {
				fmt.Println(p)
			}
		}
		for _, fault := range r.faults() {
			fmt.Fprintf(os.Stderr, "prose: %s: %s\n", kind.name, fault)
			over = true
		}
		fmt.Println(kind.name+":", r)
	}
	if over {
		os.Exit(1)
	}
}
