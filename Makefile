# make help lists the targets.
PREFIX  ?= /usr/local
DESTDIR ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# The registry image that `make demo` shows. The default is to make images from the distribution's packages.
REF     ?=

# The number of kills of make crash, and their seed; the default seed is the clock.
RUNS    ?= 200
SEED    ?=

export BANGER_TEST_CACHE

.PHONY: help
help: ## this text
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/banger, static, with the guest program in it
	@scripts/check-go
	GOOS=linux CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o internal/guest/bin/dist/banger-guest ./cmd/banger-guest
	@scripts/guest-size
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o bin/banger ./cmd/banger

.PHONY: install
install: build ## banger into PREFIX/bin
	install -D -m 0755 bin/banger $(DESTDIR)$(PREFIX)/bin/banger

.PHONY: demo
demo: ## pull images and look at their disks; REF=docker.io/library/debian:12 for a public one
	@scripts/demo $(REF)

.PHONY: lint
lint: ## gofmt, go vet, go.mod, golangci-lint, shellcheck
	@scripts/lint

.PHONY: test-short
test-short: ## the unit tests alone, for the quick loop
	@scripts/check-go
	go test ./...

.PHONY: test
test: ## everything CI runs: lint, unit tests with -race, fuzzing, end-to-end (root or sudo)
	@scripts/test

.PHONY: test-vm
test-vm: build ## the tests of dm and loop devices, as root inside a machine
	@scripts/test-vm

.PHONY: crash
crash: build ## kill banger's processes in RUNS lives of machines; SEED=n repeats (root or sudo)
	@scripts/crash -run 'TestCrash$$' -args -crash.runs=$(RUNS) $(if $(SEED),-crash.seed=$(SEED))

.PHONY: bench
bench: ## side by side with peers; see bench/README.md
	@bench/run all

.PHONY: clean
clean: ## remove the files that builds and tests have made
	rm -rf bin dist .cache internal/guest/bin/dist/banger-guest
