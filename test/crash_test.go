//go:build e2e

package e2e

import (
	"flag"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

var crashSeed = flag.Uint64("crash.seed", uint64(time.Now().UnixNano()), "seed of the moments at which banger is killed")

// moments is the number of random moments of a run at which it is killed.
const moments = 20

// momentsOf returns the number of moments for a builder. It is smaller for e2fsprogs, whose runs are several times
// slower and leave the same leftovers.
func momentsOf(builder string) int {
	if builder == "e2fsprogs" {
		return moments / 3
	}
	return moments
}

// signalAt runs the command and signals it after the delay, unless it ends first.
func signalAt(t *testing.T, box sandbox, delay time.Duration, signal os.Signal, args ...string) outcome {
	t.Helper()
	return finish(t, box.command(t.Context(), args...), func(p *os.Process) {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		<-timer.C
		_ = p.Signal(signal) // an error: the process has ended
	})
}

// randomMoments returns n random moments of a run, one in each of n equal parts of its duration.
func randomMoments(t *testing.T, run time.Duration, n int) []time.Duration {
	t.Helper()
	t.Logf("seed: go test -crash.seed=%d", *crashSeed)
	random := rand.New(rand.NewPCG(*crashSeed, 1))
	out := make([]time.Duration, n)
	for i := range out {
		out[i] = time.Duration((float64(i) + random.Float64()) / float64(n) * float64(run))
	}
	return out
}

// crashImage returns the image that a builder converts while it is killed. It is a small one for e2fsprogs, since
// the host's file system takes most of a second for a thousand staged files.
func crashImage(builder string) string {
	if builder == "e2fsprogs" {
		return "torture:1"
	}
	return "debian:12"
}

// TestR1KillDuringPull kills a pull into an empty cache at random moments. The next pull must succeed and sweep the
// leftovers.
func TestR1KillDuringPull(t *testing.T) {
	for _, builder := range builders {
		t.Run(builder, func(t *testing.T) {
			args := []string{"image", "pull", "--plain-http", "--builder=" + builder, reference(crashImage(builder))}
			undisturbed := newSandbox(t)
			start := time.Now()
			undisturbed.must(t, args...)
			took := time.Since(start)
			want := undisturbed.inventory(t)

			killed := 0
			for _, moment := range randomMoments(t, took, momentsOf(builder)) {
				box := newSandbox(t)
				if got := signalAt(t, box, moment, os.Kill, args...); got.code == -1 {
					killed++
				}
				box.expectNoProcess(t)
				box.expectSoundCache(t)
				box.must(t, args...)
				box.expectInventory(t, want)
				if t.Failed() {
					t.Fatalf("after a kill at %v of %v", moment, took)
				}
			}
			if n := momentsOf(builder); killed < n/2 {
				t.Errorf("%d of %d runs were killed: the moments miss the run", killed, n)
			}
		})
	}
}

// TestB1KillDuringBuild kills a conversion from a full cache at random moments. All runs share one sandbox, so
// leftovers would accumulate.
func TestB1KillDuringBuild(t *testing.T) {
	for _, builder := range builders {
		t.Run(builder, func(t *testing.T) {
			box, image := newSandbox(t), crashImage(builder)
			disk := box.convert(t, builder, reference(image))
			start := time.Now()
			box.convert(t, builder, reference(image))
			took := time.Since(start)
			want, tree := box.inventory(t), diskTree(t, disk)

			killed := 0
			for _, moment := range randomMoments(t, took, momentsOf(builder)) {
				got := signalAt(t, box, moment, os.Kill,
					"convert", "--plain-http", "--force", "--builder="+builder, reference(image), disk)
				if got.code == -1 {
					killed++
				}
				box.expectNoProcess(t)
				box.convert(t, builder, reference(image))
				box.expectInventory(t, want)
				if t.Failed() {
					t.Fatalf("after a kill at %v of %v", moment, took)
				}
			}
			if n := momentsOf(builder); killed < n/2 {
				t.Errorf("%d of %d runs were killed: the moments miss the run", killed, n)
			}
			expectSound(t, disk)
			expectSameTree(t, builder, image, tree, diskTree(t, disk))
		})
	}
}

// TestB1KilledBuildPublishesNothing kills the first conversion to a path. The disk must be intact or not exist.
func TestB1KilledBuildPublishesNothing(t *testing.T) {
	for _, builder := range builders {
		t.Run(builder, func(t *testing.T) {
			box := newSandbox(t)
			disk := box.path("out/disk")
			args := []string{"convert", "--plain-http", "--builder=" + builder, reference("torture:1"), disk}
			start := time.Now()
			box.must(t, args...)
			took := time.Since(start)
			for _, moment := range randomMoments(t, took, momentsOf(builder)) {
				if err := os.RemoveAll(disk); err != nil {
					t.Fatal(err)
				}
				signalAt(t, box, moment, os.Kill, args...)
				box.expectNoProcess(t)
				if _, err := os.Stat(disk); err == nil {
					expectSound(t, disk)
				}
			}
		})
	}
}
