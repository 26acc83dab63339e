package source

import (
	"context"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/kernel"
)

// depmod returns the files that modprobe(8) reads, as depmod(8) makes them. It
// makes no modules.symbols: the guest requests modules by name or alias only.
//
// infos has the .modinfo sections of x.Modules. order maps the path of a module
// to its position in modules.order: if several modules have the same alias,
// modprobe tries them in that order.
func depmod(ctx context.Context, x *kernel.Index, infos []modinfo, order map[string]int) (map[string][]byte, error) {
	byName := map[string]*kernel.ModuleInfo{}
	for i := range x.Modules {
		byName[x.Modules[i].Name] = &x.Modules[i]
	}
	var dep, alias, soft strings.Builder
	var depIndex, aliasIndex, builtinIndex indexNode
	nodes := 0
	soft.WriteString("# Soft dependencies extracted from modules themselves.\n")
	alias.WriteString("# Aliases extracted from modules themselves.\n")
	for i := range x.Modules {
		m := &x.Modules[i]
		position, ok := order[m.Path]
		if !ok {
			position = len(order) + i
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		line, err := depLine(byName, m, maxDepmod-dep.Len())
		if err != nil {
			return nil, err
		}
		dep.WriteString(line + "\n")
		nodes += depIndex.add(m.Name, line, uint32(position))
		for _, a := range infos[i].aliases {
			alias.WriteString("alias " + a + " " + m.Name + "\n")
			nodes += aliasIndex.add(aliasKey(a), m.Name, uint32(position))
			if alias.Len() > maxDepmod {
				return nil, &LimitError{"bytes of modules.alias", maxDepmod}
			}
			if nodes > maxNodes {
				return nil, &LimitError{"nodes of their indexes", maxNodes}
			}
		}
		for _, s := range infos[i].soft {
			soft.WriteString("softdep " + m.Name + " " + s + "\n")
			if soft.Len() > maxDepmod {
				return nil, &LimitError{"bytes of modules.softdep", maxDepmod}
			}
		}
	}
	for i, name := range x.Builtin {
		nodes += builtinIndex.add(name, "", uint32(i))
		if nodes > maxNodes {
			return nil, &LimitError{"nodes of their indexes", maxNodes}
		}
	}
	return map[string][]byte{
		"modules.dep": []byte(dep.String()), "modules.dep.bin": depIndex.encode(),
		"modules.alias": []byte(alias.String()), "modules.alias.bin": aliasIndex.encode(),
		"modules.softdep": []byte(soft.String()), "modules.builtin.bin": builtinIndex.encode(),
	}, nil
}

// depLine returns the line of modules.dep for m. It returns a *LimitError if
// the line has room bytes or more.
func depLine(byName map[string]*kernel.ModuleInfo, m *kernel.ModuleInfo, room int) (string, error) {
	var line strings.Builder
	line.WriteString(m.Path + ":")
	for _, d := range allDepends(byName, m) {
		line.WriteString(" " + d.Path)
		if line.Len() >= room {
			return "", &LimitError{"bytes of modules.dep", maxDepmod}
		}
	}
	return line.String(), nil
}

// allDepends returns the direct and indirect dependencies of m. Each stands
// after the modules that depend on it, because modprobe loads a line of
// modules.dep from its end.
func allDepends(byName map[string]*kernel.ModuleInfo, m *kernel.ModuleInfo) []*kernel.ModuleInfo {
	var order []*kernel.ModuleInfo
	seen := map[string]bool{m.Name: true}
	var visit func(*kernel.ModuleInfo)
	visit = func(m *kernel.ModuleInfo) {
		for _, name := range m.Depends {
			if d := byName[name]; d != nil && !seen[name] {
				seen[name] = true
				visit(d)
				order = append(order, d)
			}
		}
	}
	visit(m)
	slices.Reverse(order)
	return order
}

// aliasKey replaces '-' by '_' except inside brackets, as modprobe does before
// it looks up an alias.
func aliasKey(alias string) string {
	out := []byte(alias)
	depth := 0
	for i, c := range out {
		switch {
		case c == '[':
			depth++
		case c == ']':
			depth--
		case c == '-' && depth == 0:
			out[i] = '_'
		}
	}
	return string(out)
}
