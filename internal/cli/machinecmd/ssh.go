package machinecmd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/connect"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/spf13/cobra"
)

// sshFlags are the flags of ssh. Those that ssh(1) has too have its names.
type sshFlags struct {
	user                     string
	config, agent, noCommand bool
	local, remote, dynamic   []string
}

// arguments returns the arguments of ssh(1) that are not options of a machine.
func (s *sshFlags) arguments() (args []string) {
	for _, forwards := range []struct {
		flag string
		list []string
	}{{"-L", s.local}, {"-R", s.remote}, {"-D", s.dynamic}} {
		for _, f := range forwards.list {
			args = append(args, forwards.flag, f)
		}
	}
	if s.noCommand {
		args = append(args, "-N")
	}
	return args
}

func sshCommand(e *env.Env) *cobra.Command {
	var s sshFlags
	cmd := &cobra.Command{
		Use:   "ssh [flags] MACHINE [ARG…]",
		Short: "Log in to a machine with ssh(1)",
		Long: "Log in to a running machine, or run a command in it, with the host's ssh(1) and\n" +
			"over no network. With --config print what ssh, scp, sftp and rsync need to reach\n" +
			"the machine, for ~/.ssh/config or ssh -F. The user's SSH agent is passed on with -A\n" +
			"only: root in the machine can use its keys meanwhile.",
		Example: `  banger ssh web
  banger ssh -R 8080:localhost:80 web
  banger ssh --config web > web.conf && scp -F web.conf file web:/tmp/`,
		Args: arg.AtLeastOne("MACHINE"), ValidArgsFunction: machineNames(e),
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringVarP(&s.user, "user", "u", "root", "user to log in as")
	f.BoolVar(&s.config, "config", false, "print the configuration for ssh and go")
	f.BoolVarP(&s.agent, "forward-agent", "A", false, "let the machine use the keys of the SSH agent here")
	f.StringArrayVarP(&s.local, "local", "L", nil, "[ADDRESS:]PORT:HOST:PORT here, connected to there")
	f.StringArrayVarP(&s.remote, "remote", "R", nil, "[ADDRESS:]PORT:HOST:PORT there, connected to here")
	f.StringArrayVarP(&s.dynamic, "dynamic", "D", nil, "[ADDRESS:]PORT here, a SOCKS proxy into the machine")
	f.BoolVarP(&s.noCommand, "no-command", "N", false, "run no command: only forward")
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
			return notRunning(args[0])
		}
		options, err := sshOptions(e, m.ID, &s)
		if err != nil {
			return err
		}
		if s.config {
			fmt.Fprintf(e.Out, "Host %s\n", m.Name)
			for _, o := range options {
				fmt.Fprintf(e.Out, "    %s %s\n", o[0], o[1])
			}
			return nil
		}
		return runSSH(options, s.arguments(), m.Name, args[1:])
	}
	return cmd
}

// sshOptions returns the options for ssh(1) to reach a machine. They name the key
// files, which belong to the user, so that ssh reads them itself.
func sshOptions(e *env.Env, id string, s *sshFlags) ([][2]string, error) {
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
		{"ProxyCommand", strings.ReplaceAll(proxy, "%", "%%")}, {"User", s.user},
		{"IdentityFile", sshQuote(access.Key)}, {"IdentitiesOnly", "yes"},
		{"UserKnownHostsFile", sshQuote(access.KnownHosts)}, {"GlobalKnownHostsFile", "none"},
		{"HostKeyAlias", access.HostAlias}, {"StrictHostKeyChecking", "yes"}, s.agentOption(),
	}, nil
}

// agentOption returns the option about the user's SSH agent. The machine's key is in
// a file, so ssh needs no agent to log in. But a configuration file must leave it to
// ssh -A, which IdentityAgent=none would undo without a word.
func (s *sshFlags) agentOption() [2]string {
	switch {
	case s.agent:
		return [2]string{"ForwardAgent", "yes"}
	case s.config:
		return [2]string{"ForwardAgent", "no"}
	}
	return [2]string{"IdentityAgent", "none"}
}

// runSSH replaces this process by ssh(1).
func runSSH(options [][2]string, flags []string, host string, args []string) error {
	tool, err := exec.LookPath("ssh")
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	argv := []string{"ssh", "-F", "none"}
	for _, o := range options {
		argv = append(argv, "-o", o[0]+"="+o[1])
	}
	argv = slices.Concat(argv, flags, []string{"--", host}, args)
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
			if why := machines.Paused(cmd.Context(), rec.ID); why != "" { // it would not answer
				return fmt.Errorf("machine %s is paused (%s)", args[0], why)
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
