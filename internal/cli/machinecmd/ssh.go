package machinecmd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/connect"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/spf13/cobra"
)

func sshCommand(e *env.Env) *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use:   "ssh [FLAGS] MACHINE [ARG…]",
		Short: "Log in to a machine with ssh(1)",
		Long: "Log in to a running machine, or run a command in it, with the host's ssh(1) and\n" +
			"over no network. With --config print what ssh, scp, sftp and rsync need to reach\n" +
			"the machine, for ~/.ssh/config or ssh -F.",
		Example: `  banger ssh web
  banger ssh --config web > web.conf && scp -F web.conf file web:/tmp/`,
		Args: arg.AtLeastOne("MACHINE"), ValidArgsFunction: machineNames(e),
	}
	var config bool
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringVarP(&user, "user", "u", "root", "user to log in as")
	f.BoolVar(&config, "config", false, "print the configuration for ssh and go")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		daemon, err := connect.Daemon(cmd.Context(), e)
		if err != nil {
			return err
		}
		m, err := daemon.Inspect(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if m.State != api.StateRunning { // ssh has no clear message for this
			return notRunning(m)
		}
		options, err := sshOptions(e, m.ID, user)
		if err != nil {
			return err
		}
		if config {
			fmt.Fprintf(e.Out, "Host %s\n", m.Name)
			for _, o := range options {
				fmt.Fprintf(e.Out, "    %s %s\n", o[0], o[1])
			}
			return nil
		}
		return runSSH(options, m.Name, args[1:])
	}
	return cmd
}

// sshOptions returns the options for ssh(1) to reach a machine. They name the key
// files, which belong to the user, so that ssh reads them itself.
func sshOptions(e *env.Env, id, user string) ([][2]string, error) {
	machines, err := openMachines(e)
	if err != nil {
		return nil, err
	}
	access := machines.Access(&record.Record{ID: id})
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find banger: %w", err)
	}
	proxy := quoteWords(self, "--data-root", e.Paths.Data, "ssh-proxy", id)
	return [][2]string{
		{"ProxyCommand", strings.ReplaceAll(proxy, "%", "%%")}, {"User", user},
		{"IdentityFile", sshQuote(access.Key)}, {"IdentitiesOnly", "yes"}, {"IdentityAgent", "none"},
		{"UserKnownHostsFile", sshQuote(access.KnownHosts)}, {"GlobalKnownHostsFile", "none"},
		{"HostKeyAlias", access.HostAlias}, {"StrictHostKeyChecking", "yes"}, {"LogLevel", "ERROR"},
	}, nil
}

// runSSH replaces this process by ssh(1).
func runSSH(options [][2]string, host string, args []string) error {
	tool, err := exec.LookPath("ssh")
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	argv := []string{"ssh", "-F", "none"}
	for _, o := range options {
		argv = append(argv, "-o", o[0]+"="+o[1])
	}
	argv = append(append(argv, "--", host), args...)
	return fmt.Errorf("start ssh: %w", syscall.Exec(tool, argv, os.Environ()))
}

// quoteWords quotes words for the shell that runs a ProxyCommand, and joins them.
func quoteWords(words ...string) string {
	for i, w := range words {
		words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	return strings.Join(words, " ")
}

// sshQuote quotes a file name for ssh_config(5).
func sshQuote(name string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`).Replace(name) + `"`
}

// sshProxyCommand returns the command that ssh(1) runs as ProxyCommand. It
// connects standard input and output with the machine's SSH server. It needs no
// daemon, so that the session does not end with one.
func sshProxyCommand(e *env.Env) *cobra.Command {
	return &cobra.Command{
		Use: "ssh-proxy MACHINE", Hidden: true, Args: arg.Exactly("MACHINE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			machines, err := openMachines(e)
			if err != nil {
				return err
			}
			rec, err := machines.Find(args[0])
			if err != nil {
				return err
			}
			conn, err := machines.Dial(cmd.Context(), rec)
			if err != nil {
				return err
			}
			defer conn.Close()
			go func() {
				_, _ = io.Copy(conn, e.In) // ssh reports a broken connection
				if c, ok := conn.(interface{ CloseWrite() error }); ok {
					_ = c.CloseWrite() // the machine reads the end of the input
				}
			}()
			_, err = io.Copy(e.Out, conn)
			if errors.Is(err, syscall.EPIPE) {
				err = nil // ssh has ended
			}
			return err
		},
	}
}
