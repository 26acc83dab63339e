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

// tableOwner returns the owner of the table name. ok reports whether the name is
// one of this package's.
func tableOwner(name string) (owner ledger.Owner, ok bool) {
	rest, ok := strings.CutPrefix(name, tablePrefix)
	owner, valid := ledger.ParseOwner(strings.ReplaceAll(rest, "_", "-"))
	return owner, ok && valid
}

func removeTable(e *ledger.Entry) error {
	if owner, ok := tableOwner(e.Name); !ok || owner != e.Owner {
		return fmt.Errorf("table name %q: does not belong to owner %s", e.Name, e.Owner)
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

// findTables returns entries for the tables whose owner want accepts.
func findTables(want func(ledger.Owner) bool) ([]ledger.Entry, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("list nftables: %w", err)
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if isUnavailable(err) {
		return nil, nil // a user who may not list tables has made none
	}
	if err != nil {
		return nil, fmt.Errorf("list nftables: %w", err)
	}
	var out []ledger.Entry
	for _, t := range tables {
		if owner, ok := tableOwner(t.Name); ok && want(owner) {
			out = append(out, ledger.Entry{Kind: ledger.Table, Name: t.Name, Owner: owner})
		}
	}
	return out, nil
}

// isUnavailable reports whether err means that the kernel does not have a
// facility, or denies it to this user.
func isUnavailable(err error) bool {
	for _, e := range []error{
		unix.EPERM, unix.EACCES, unix.ENOENT, unix.ENXIO, unix.ENODEV, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
