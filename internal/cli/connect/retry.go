package connect

import (
	"context"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/env"
)

// Retry calls do with a client of the daemon, and again with one of the next
// daemon whenever the daemon ends before it has answered. do must be a request
// that may be made twice.
func Retry(ctx context.Context, e *env.Env, do func(*api.Client) error) error {
	const limit = 10 // a daemon that ends so often will end the next time too
	for tries := 1; ; tries++ {
		daemon, err := Daemon(ctx, e)
		if err != nil {
			return err
		}
		err = do(daemon)
		if !api.IsLost(err) || ctx.Err() != nil || tries == limit {
			return err
		}
	}
}
