package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/banger-vm/banger/api"
	"github.com/spf13/cobra"
)

func (a *app) runCommand() *cobra.Command {
	var m machineFlags
	cmd := &cobra.Command{
		Use:   "run [FLAGS] IMAGE [COMMAND [ARG…]]",
		Short: "Run a command in a new machine",
		Long: "Run a command in a new machine made from an image, which is pulled if it is not\n" +
			"here. The exit code is the command's; 125 says that banger itself failed.\n\n" +
			"The first Ctrl-C goes to the command, the second asks the machine to stop, the\n" +
			"third kills it. The machine goes on without this command where that is killed, or\n" +
			"left with the detach keys: banger attach comes back.",
		Example: `  banger run --rm debian:12 cat /etc/os-release
  banger run --rm -it --memory 2G --cpus 2 debian:12 bash
  echo hi | banger run --rm -i debian:12 cat
  banger run -d --name web --restart on-failure:3 registry.example/web:1`,
		Args: atLeastOne("IMAGE"), ValidArgsFunction: a.imageNames,
		RunE: func(cmd *cobra.Command, args []string) error { return ownFailure(a.run(cmd, &m, args)) },
	}
	m.register(cmd)
	m.registerRun(cmd)
	return cmd
}

func (a *app) run(cmd *cobra.Command, m *machineFlags, args []string) (err error) {
	config, err := m.config(cmd, args[1:])
	if err != nil {
		return err
	}
	f, err := a.foregroundOf(m)
	if err != nil {
		return err
	}
	if f.id, err = openIDFile(m.idFile); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.id.close()) }()
	return a.runMachine(cmd.Context(), f, m, args[0], config)
}

// foregroundOf is how a run is waited for.
func (a *app) foregroundOf(m *machineFlags) (*foreground, error) {
	f := &foreground{app: a, reach: a.daemon, timeout: m.timeout, fresh: true}
	switch {
	case m.timeout < 0:
		return nil, usagef("--timeout=%v is negative", m.timeout)
	case m.detach && m.timeout > 0:
		return nil, usagef("--timeout is for what runs in the foreground: leave out -d, or --timeout")
	case m.detach:
		return f, nil
	}
	return f, f.connect(m.tty, m.interactive, m.detachKeys)
}

func (a *app) runMachine(ctx context.Context, f *foreground, m *machineFlags, ref string, config api.Config) error {
	create, err := a.createRequest(ctx, m, ref, config)
	if err != nil {
		return err
	}
	if f.daemon, err = a.daemon(ctx); err != nil {
		return err
	}
	req := api.RunRequest{Create: create, Start: api.StartRequest{
		Attach: !m.detach, Console: a.verbose && !m.detach, TTY: f.term.size(),
	}}
	err = f.boot(ctx, func(ctx context.Context, streams api.Stdio) (*api.Process, error) {
		return f.daemon.Run(ctx, req, streams)
	})
	if err == nil && m.detach {
		_, err = fmt.Fprintln(a.out, f.machine)
	}
	return err
}
