// Command lifecycle measures the time to create, remove and list machines, and the daemon's memory.
//
//	lifecycle BANGER IMAGE RUNS
//
// The XDG variables of the environment set banger's folders, which must have no machines. $PATH must have the stub of
// test/stubvmm as QEMU, since a hundred machines run at once.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "lifecycle:", err)
		os.Exit(1)
	}
}

// A bench is a program banger and an image.
type bench struct{ banger, image string }

func run(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return errors.New("usage: lifecycle BANGER IMAGE RUNS")
	}
	runs, err := strconv.Atoi(args[2])
	if err != nil || runs < 1 {
		return fmt.Errorf("runs %q: want a number", args[2])
	}
	b := bench{args[0], args[1]}
	return errors.Join(b.createAndRemove(ctx, runs), b.memory(ctx), b.list(ctx, runs))
}

// do runs a command of banger and returns its duration.
func (b bench) do(ctx context.Context, args ...string) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, b.banger, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("banger %s: %w: %s", strings.Join(args, " "), err, &out)
	}
	return time.Since(start), nil
}

func (b bench) create(ctx context.Context, name string, flags ...string) (time.Duration, error) {
	args := append([]string{"create", "--name", name, "--user", "0"}, flags...) // user 0: commands in the stub run on the host
	return b.do(ctx, append(args, b.image, "sleep", "100000")...)
}

// createAndRemove measures create and rm with disks of two sizes.
func (b bench) createAndRemove(ctx context.Context, runs int) error {
	fmt.Printf("\n**Creating and removing a machine** (medians of %d)\n\n| disk | create, ms | rm, ms |\n|---|---:|---:|\n", runs)
	for _, size := range []string{"1G", "20G"} {
		var made, removed []time.Duration
		for i := range runs + 1 {
			create, err := b.create(ctx, "one", "--disk-size="+size)
			if err != nil {
				return err
			}
			rm, err := b.do(ctx, "rm", "one")
			if err != nil {
				return err
			}
			if i > 0 { // the first round starts the daemon
				made, removed = append(made, create), append(removed, rm)
			}
		}
		fmt.Printf("| %s | %s | %s |\n", size, median(made), median(removed))
	}
	return nil
}

func median(took []time.Duration) string {
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return d.Seconds() * 1000 }
	return fmt.Sprintf("%.0f (%.0f to %.0f)", ms(took[len(took)/2]), ms(took[0]), ms(took[len(took)-1]))
}

// each calls do for 0 to n-1, at most four at a time, and returns the first error.
func each(n int, do func(i int) error) error {
	const workers = 4
	var all sync.WaitGroup
	numbers, failed := make(chan int), make(chan error, n)
	for range workers {
		all.Go(func() {
			for i := range numbers {
				if err := do(i); err != nil {
					failed <- err
				}
			}
		})
	}
	for i := range n {
		numbers <- i
	}
	close(numbers)
	all.Wait()
	close(failed)
	return <-failed
}

func name(i int) string { return "m" + strconv.Itoa(i) }

// memory measures the daemon's memory while 0, 10 and 100 machines run.
func (b bench) memory(ctx context.Context) error {
	fmt.Print("\n**Memory of the daemon**, with all machines running\n\n| machines | resident, MiB | proportional, MiB |\n|---:|---:|---:|\n")
	running := 0
	for _, machines := range []int{0, 10, 100} {
		err := each(machines-running, func(i int) error {
			if _, err := b.create(ctx, name(running+i)); err != nil {
				return err
			}
			_, err := b.do(ctx, "start", name(running+i))
			return err
		})
		if err != nil {
			return err
		}
		running = machines
		if _, err := b.do(ctx, "ps"); err != nil {
			return err
		}
		rss, pss, err := b.daemonMemory()
		if err != nil {
			return err
		}
		fmt.Printf("| %d | %.1f | %.1f |\n", machines, rss, pss)
	}
	return each(running, func(i int) error {
		_, err := b.do(ctx, "rm", "-f", name(i))
		return err
	})
}

// daemonMemory returns the daemon's resident and proportional set size in MiB, from smaps_rollup of proc(5).
func (b bench) daemonMemory() (rss, pss float64, err error) {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, 0, err
	}
	program, err := filepath.EvalSymlinks(b.banger)
	if err != nil {
		return 0, 0, err
	}
	for _, path := range lines {
		line, err := os.ReadFile(path)
		exe, linkErr := os.Readlink(filepath.Join(filepath.Dir(path), "exe"))
		if err != nil || linkErr != nil || exe != program || !slices.Contains(strings.Split(string(line), "\x00"), "daemon") {
			continue
		}
		rollup, err := os.ReadFile(filepath.Join(filepath.Dir(path), "smaps_rollup"))
		if err != nil {
			return 0, 0, err
		}
		for text := range strings.Lines(string(rollup)) {
			var kib float64
			if n, _ := fmt.Sscanf(text, "Rss: %f kB", &kib); n == 1 {
				rss = kib / 1024
			}
			if n, _ := fmt.Sscanf(text, "Pss: %f kB", &kib); n == 1 {
				pss = kib / 1024
			}
		}
		return rss, pss, nil
	}
	return 0, 0, fmt.Errorf("no daemon of %s runs", program)
}

// list measures ps with 1,000 machines.
func (b bench) list(ctx context.Context, runs int) error {
	const machines = 1000
	err := each(machines, func(i int) error {
		_, err := b.create(ctx, name(i))
		return err
	})
	if err != nil {
		return err
	}
	var took []time.Duration
	for range runs {
		ps, err := b.do(ctx, "ps", "-a")
		if err != nil {
			return err
		}
		took = append(took, ps)
	}
	fmt.Printf("\n`ps -a` with %d machines: %s ms, median of %d.\n", machines, median(took), runs)
	return each(machines, func(i int) error {
		_, err := b.do(ctx, "rm", name(i))
		return err
	})
}
