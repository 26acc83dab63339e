package resource

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/machine/ledger"
)

const tablePrefix = "banger_"

// Table makes the machine's nftables table, family inet, and returns its name.
func (m Maker) Table(ctx context.Context) (name string, err error) {
	name = tablePrefix + strings.ReplaceAll(string(m.Owner), "-", "_")
	err = m.make(ctx, ledger.Entry{Kind: ledger.Table, Name: name}, func(*ledger.Entry) error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		conn.AddTable(&nftables.Table{Name: name, Family: nftables.TableFamilyINet})
		return conn.Flush()
	})
	if err != nil {
		return "", err
	}
	return name, nil
}

// tableOwner is whose table has the name.
func tableOwner(name string) (ledger.Owner, bool) {
	rest, ok := strings.CutPrefix(name, tablePrefix)
	owner, valid := ledger.ParseOwner(strings.ReplaceAll(rest, "_", "-"))
	return owner, ok && valid
}

func removeTable(e *ledger.Entry) error {
	if owner, ok := tableOwner(e.Name); !ok || owner != e.Owner {
		return errors.New("name is not one of its owner's")
	}
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	conn.DelTable(&nftables.Table{Name: e.Name, Family: nftables.TableFamilyINet})
	if err := conn.Flush(); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

func findTables(want func(ledger.Owner) bool) ([]ledger.Entry, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("list nftables: %w", err)
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if refused(err) {
		return nil, nil // who may not list tables has made none
	}
	if err != nil {
		return nil, fmt.Errorf("list nftables: %w", err)
	}
	boot, err := BootID()
	if err != nil {
		return nil, err
	}
	var out []ledger.Entry
	for _, t := range tables {
		if owner, ok := tableOwner(t.Name); ok && want(owner) {
			out = append(out, ledger.Entry{Kind: ledger.Table, Name: t.Name, Owner: owner, Boot: boot})
		}
	}
	return out, nil
}

// refused reports whether the kernel lacks a facility, or keeps it from this
// user.
func refused(err error) bool {
	for _, e := range []error{
		unix.EPERM, unix.EACCES, unix.ENOENT, unix.ENXIO, unix.ENODEV, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
