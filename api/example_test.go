package api_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/banger-vm/banger/api"
)

// The output of banger version --json has the path of the daemon's socket, which is in
// the runtime folder of the user.
var client = &api.Client{Socket: "/run/user/1000/banger/0b38f860/daemon.sock", Program: "example/1"}

func ExampleClient_List() {
	list, err := client.List(context.Background(), api.ListRequest{All: true, Filters: []string{"label=tier=front"}})
	if errors.Is(err, api.ErrUnreachable) {
		log.Fatal("start the daemon first: banger daemon")
	}
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range list.Machines {
		fmt.Println(m.ID, m.Name, m.State)
	}
}

func ExampleClient_Run() {
	p, err := client.Run(context.Background(), api.RunRequest{
		Create: api.CreateRequest{Image: "debian:12", Remove: true, Config: api.Config{Args: []string{"uname", "-r"}}},
		Start:  api.StartRequest{Attach: true},
	}, api.Stdio{Out: os.Stdout, Err: os.Stderr, Event: func(e api.Event) {
		if e.Notice != "" {
			log.Print(e.Notice)
		}
	}})
	if err != nil {
		log.Fatal(err)
	}
	exit, err := p.Wait()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("exit code", exit.Code)
}

func ExampleClient_Exec() {
	p, err := client.Exec(context.Background(), "web", api.ExecRequest{Args: []string{"cat"}}, api.Stdio{In: os.Stdin, Out: os.Stdout})
	if refused, ok := errors.AsType[*api.Error](err); ok && refused.Code == api.CodeNotRunning {
		log.Fatal("web does not run")
	}
	if err != nil {
		log.Fatal(err)
	}
	if _, err := p.Wait(); err != nil {
		log.Fatal(err)
	}
}
