package machinecmd

import (
	"context"
	"errors"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/attach"
	"github.com/banger-vm/banger/internal/cli/connect"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
	"github.com/banger-vm/banger/internal/cli/fetch"
	"github.com/spf13/cobra"
)

func runCommand(e *env.Env) *cobra.Command {
	var m machineFlags
	cmd := &cobra.Command{
		Use:   "run [flags] IMAGE [COMMAND [ARG…]]",
		Short: "Run a command in a new machine",
		Long: "Run a command in a new machine made from an image, which is pulled if it is not\n" +
			"here. The exit code is the command's; 125 says that banger itself failed.\n\n" +
			"The first Ctrl-C goes to the command, the second asks the machine to stop, the\n" +
			"third kills it. The machine goes on without this command where that is killed, left\n" +
			"with the detach keys, or loses its terminal: banger attach comes back.",
		Example: `  banger run --rm debian:12 cat /etc/os-release
  banger run --rm -it --memory 2G --cpus 2 debian:12 bash
  echo hi | banger run --rm -i debian:12 cat
  banger run -d --name web --restart on-failure:3 registry.example/web:1`,
		Args: arg.AtLeastOne("IMAGE"), ValidArgsFunction: fetch.ImageNames(e),
		RunE: func(cmd *cobra.Command, args []string) error { return exit.OfCommand(runMachine(cmd, e, &m, args)) },
	}
	m.register(cmd)
	m.registerRun(cmd)
	return cmd
}

func runMachine(cmd *cobra.Command, e *env.Env, m *machineFlags, args []string) (err error) {
	config, err := m.config(cmd, args[1:])
	if err != nil {
		return err
	}
	s, err := runSession(e, m)
	if err != nil {
		return err
	}
	id, err := openIDFile(m.idFile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, id.close()) }()
	s.OnReady = id.write
	return createAndStart(cmd.Context(), e, s, m, args[0], config)
}

// runSession returns the session that waits for the end of the command, or
// with --detach for the end of the boot.
func runSession(e *env.Env, m *machineFlags) (*attach.Session, error) {
	s := newSession(e)
	s.Timeout, s.RemoveOnAbort = m.timeout, true
	if err := m.wait.check(m.detach); err != nil {
		return nil, err
	}
	switch {
	case e.JSON && !m.detach:
		return nil, exit.Usagef("banger run prints what the command writes: leave out --json, or use -d")
	case m.timeout < 0:
		return nil, exit.Usagef("--timeout=%v is negative", m.timeout)
	case m.detach && m.timeout > 0:
		return nil, exit.Usagef("--timeout is for what runs in the foreground: leave out -d, or --timeout")
	case m.detach:
		return s, nil
	}
	return s, s.Open(m.tty, m.interactive, m.detachKeys)
}

func createAndStart(ctx context.Context, e *env.Env, s *attach.Session, m *machineFlags, ref string, config api.Config) error {
	create, err := createRequest(ctx, e, m, ref, config)
	if err != nil {
		return err
	}
	if s.Daemon, err = connect.Daemon(ctx, e); err != nil {
		return err
	}
	req := api.RunRequest{Create: create, Start: api.StartRequest{
		Attach: !m.detach, Console: e.Verbose && !m.detach, TTY: s.TTY(),
	}}
	err = s.Start(ctx, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
		return s.Daemon.Run(ctx, req, streams)
	})
	if err == nil && m.detach {
		err = m.wait.await(ctx, e, s.Daemon, s.Machine)
	}
	if err == nil && m.detach {
		err = printID(e, s.Machine)
	}
	return err
}
