// Command banger-guest is the part of banger that runs inside a machine. It runs as
// process 1, as the agent, and as children of the agent that serve SFTP and copy files.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/agent"
	"github.com/banger-vm/banger/internal/guest/boot"
	"github.com/banger-vm/banger/internal/guest/control"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, guest.ErrorPrefix+err.Error())
		os.Exit(1)
	}
}

func run() error {
	switch {
	case os.Getpid() == 1:
		boot.Main()
		return errors.New("the machine cannot be powered off")
	case os.Args[0] == boot.AgentName:
		f, config, err := control.Open()
		if err != nil {
			return err
		}
		defer f.Close()
		return agent.Run(context.Background(), agent.Options{Config: *config, Control: f, AskInit: boot.AskInit})
	case len(os.Args) > 1 && os.Args[1] == "sftp":
		return agent.SFTP()
	case len(os.Args) > 2 && os.Args[1] == "archive":
		return agent.Archive(os.Args[2])
	}
	return errors.New("this program runs only inside a machine")
}
