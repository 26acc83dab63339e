package render

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
	"text/template"
	"text/template/parse"

	"github.com/banger-vm/banger/internal/cli/env"
)

// Row writes a line of a table. The texts in args get clean, so that they neither
// control the terminal nor begin another column or line.
func Row(w io.Writer, format string, args ...any) {
	fmt.Fprintf(w, format+"\n", env.CleanArgs(args)...)
}

// controlsInJSON matches the control characters that JSON does not escape: DEL, and
// C1 in UTF-8. They occur only in strings.
var controlsInJSON = regexp.MustCompile("[\u007f-\u009f]")

// escapeJSON escapes the control characters that package json leaves as they are.
func escapeJSON(text []byte) []byte {
	return controlsInJSON.ReplaceAllFunc(text, func(char []byte) []byte {
		return fmt.Appendf(nil, `\u%04x`, bytes.Runes(char)[0])
	})
}

// A cleanText is a text that cleanFunc leaves as it is.
type cleanText string

// cleanFunc is the name of the function that ends each pipeline of a template.
const cleanFunc = "_clean"

// cleanFuncs returns the functions of templates that clean texts. printf, println and
// join keep the control characters of the user's own format or separator.
func cleanFuncs() template.FuncMap {
	return template.FuncMap{
		cleanFunc: func(v any) cleanText {
			if text, ok := v.(cleanText); ok {
				return text
			}
			return cleanText(env.Clean(fmt.Sprint(v)))
		},
		"printf": func(format string, args ...any) cleanText {
			return cleanText(fmt.Sprintf(format, env.CleanArgs(args)...))
		},
		"println": func(args ...any) cleanText {
			return cleanText(strings.TrimSuffix(env.Clean(fmt.Sprintln(args...)), " ") + "\n")
		},
		"join": func(list []string, with string) cleanText {
			clean := make([]string, len(list))
			for i, text := range list {
				clean[i] = env.Clean(text)
			}
			return cleanText(strings.Join(clean, with))
		},
	}
}

// cleanPipelines ends each pipeline that prints with cleanFunc, as html/template does
// with its escapers. Literals are the user's own text and stay as they are.
func cleanPipelines(t *template.Template) {
	for _, defined := range t.Templates() {
		if defined.Tree != nil {
			cleanNode(defined.Root)
		}
	}
}

func cleanNode(node parse.Node) {
	switch n := node.(type) {
	case *parse.ListNode:
		if n == nil { // no else
			return
		}
		for _, child := range n.Nodes {
			cleanNode(child)
		}
	case *parse.IfNode:
		cleanBranch(&n.BranchNode)
	case *parse.RangeNode:
		cleanBranch(&n.BranchNode)
	case *parse.WithNode:
		cleanBranch(&n.BranchNode)
	case *parse.ActionNode:
		if len(n.Pipe.Decl) == 0 && !isLiteral(n.Pipe) {
			call := parse.NewIdentifier(cleanFunc).SetPos(n.Pos)
			n.Pipe.Cmds = append(n.Pipe.Cmds, &parse.CommandNode{NodeType: parse.NodeCommand, Pos: n.Pos, Args: []parse.Node{call}})
		}
	}
}

func cleanBranch(n *parse.BranchNode) {
	cleanNode(n.List)
	cleanNode(n.ElseList)
}

func isLiteral(pipe *parse.PipeNode) bool {
	return len(pipe.Cmds) == 1 && len(pipe.Cmds[0].Args) == 1 && pipe.Cmds[0].Args[0].Type() == parse.NodeString
}
