package machinecmd

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/arg"
	"github.com/banger-vm/banger/internal/cli/attach"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
	"github.com/banger-vm/banger/internal/cli/fetch"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/machine/spec"
	"github.com/spf13/cobra"
)

// machineFlags are the flags of create and run.
type machineFlags struct {
	read fetch.Flags // for an image that is pulled

	name, hostname   string
	cpus             int
	memory, diskSize string
	kernel, model    string
	init, accel      string
	readOnly         bool
	entrypoint       string
	env, envFiles    []string
	labels           []string
	user, dir        string
	interactive, tty bool
	pull             string
	remove           bool
	restart          string
	diskDriver       string
	idFile           string

	detach     bool
	detachKeys string
	wait       waitFlag
	timeout    time.Duration
}

func (m *machineFlags) register(cmd *cobra.Command) {
	m.read.RegisterRead(cmd)
	f := cmd.Flags()
	f.SetInterspersed(false) // flags after the image belong to the command
	f.StringVar(&m.name, "name", "", "name of the machine (default made up)")
	f.StringVar(&m.hostname, "hostname", "", "hostname inside (default the machine's name)")
	f.IntVar(&m.cpus, "cpus", 0, fmt.Sprintf("virtual processors (default %d)", spec.DefaultCPUs))
	f.StringVarP(&m.memory, "memory", "m", "", fmt.Sprintf("memory, as 2G (default %dM)", spec.DefaultMemory>>20))
	f.StringVar(&m.diskSize, "disk-size", "", "size of the root disk, as 20G; the file system grows to it (default the image's)")
	f.StringVar(&m.kernel, "kernel", "", "kernel to boot, see banger kernel (default the one named "+kernel.DefaultName+")")
	f.StringVar(&m.model, "machine", "", "machine model: microvm or q35 (default microvm)")
	f.StringVar(&m.init, "init", "", "process 1: auto, image (the image's own init) or banger (default auto)")
	f.StringVar(&m.accel, "accel", "", "kvm or tcg (default KVM where it works)")
	f.BoolVar(&m.readOnly, "read-only", false, "mount the root file system read-only")
	f.StringVar(&m.entrypoint, "entrypoint", "", "program to run in place of the image's entrypoint")
	f.StringArrayVarP(&m.env, "env", "e", nil, "NAME=VALUE for the command, or NAME to pass the value on from here")
	f.StringArrayVar(&m.envFiles, "env-file", nil, "file of such lines")
	f.StringArrayVarP(&m.labels, "label", "l", nil, "KEY=VALUE to find the machine by")
	f.StringVarP(&m.user, "user", "u", "", "user[:group], names or numbers (default the image's)")
	f.StringVarP(&m.dir, "workdir", "w", "", "working directory (default the image's)")
	f.BoolVarP(&m.interactive, "interactive", "i", false, "pass standard input to the command")
	f.BoolVarP(&m.tty, "tty", "t", false, "give the command a terminal")
	f.StringVar(&m.pull, "pull", "missing", "pull the image before: always, missing or never")
	f.BoolVar(&m.remove, "rm", false, "remove the machine and its disk when it ends")
	f.StringVar(&m.restart, "restart", "no", "boot it again when it ends: no, on-failure[:N], always or unless-stopped")
	f.StringVar(&m.diskDriver, "disk-driver", "", "what the disk is: auto, reflink, overlay, dm or copy (default auto)")
	f.StringVar(&m.idFile, "idfile", "", "new file to write the machine's ID to")
	arg.FlagGroup(f, arg.MachineFlags, "name", "hostname", "cpus", "memory", "disk-size", "disk-driver", "kernel", "machine", "init", "accel",
		"read-only", "label", "rm", "restart", "idfile")
	arg.FlagGroup(f, arg.CommandFlags, "entrypoint", "env", "env-file", "user", "workdir", "interactive", "tty")
	arg.FlagGroup(f, arg.ImageFlags, "pull")
}

// registerRun adds the flags that only run has.
func (m *machineFlags) registerRun(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVarP(&m.detach, "detach", "d", false, "run the machine in the background and print its ID")
	f.StringVar(&m.detachKeys, "detach-keys", attach.DefaultDetachKeys, "keys to leave a terminal with while the machine goes on")
	m.wait.register(f)
	f.DurationVar(&m.timeout, "timeout", 0, "end the machine so long after the start of its command, as 30s, with exit code 124")
	arg.FlagGroup(f, arg.CommandFlags, "detach", "detach-keys", "timeout", "wait")
}

// config returns the configuration that the flags describe. args are the words
// of the command.
func (m *machineFlags) config(cmd *cobra.Command, args []string) (api.Config, error) {
	c := api.Config{
		Hostname: m.hostname, CPUs: m.cpus, Model: m.model, Init: m.init, Accel: m.accel, DiskDriver: m.diskDriver,
		ReadOnly: m.readOnly, Args: args, User: m.user, Dir: m.dir, TTY: m.tty, Stdin: m.interactive,
	}
	if cmd.Flags().Changed("entrypoint") {
		c.Entrypoint = &m.entrypoint
	}
	var err error
	if c.Memory, err = parseSize("--memory", m.memory); err != nil {
		return c, err
	}
	if c.DiskSize, err = parseSize("--disk-size", m.diskSize); err != nil {
		return c, err
	}
	if c.Restart, err = parseRestart(m.restart); err != nil {
		return c, err
	}
	if c.Env, err = environment(m.envFiles, m.env); err != nil {
		return c, err
	}
	if c.Labels, err = parseLabels(m.labels); err != nil {
		return c, err
	}
	return c, m.validate(c)
}

// validate returns a usage error if the daemon would refuse the configuration.
func (m *machineFlags) validate(c api.Config) error {
	switch m.pull {
	case "always", "missing", "never":
	default:
		return exit.Usagef("--pull=%s: want always, missing or never", m.pull)
	}
	config := spec.FromAPI(api.CreateRequest{Name: m.name, Config: c})
	if err := spec.Validate(&config, m.remove); err != nil {
		return exit.Usagef("%v", err)
	}
	return nil
}

// parseSize returns the bytes that the text of a flag stands for, 0 for "".
func parseSize(flag, text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := env.ParseSize(text)
	if err != nil {
		return 0, exit.Usagef("%s: %v", flag, err)
	}
	const leastBytes = 1 << 20 // no machine has a memory or a disk of fewer
	if _, err := strconv.Atoi(text); err == nil && 0 < n && n < leastBytes {
		return 0, exit.Usagef("%s=%s: a number without a unit is in bytes; %sM is %s MiB", flag, text, text, text)
	}
	return n, nil
}

// parseRestart parses a restart policy in docker's form, POLICY[:RETRIES].
func parseRestart(text string) (api.Restart, error) {
	policy, retries, bounded := strings.Cut(text, ":")
	if text == "" || text == string(spec.RestartNo) {
		return api.Restart{}, nil
	}
	r := api.Restart{Policy: policy}
	if !bounded {
		return r, nil
	}
	var err error
	if r.Retries, err = strconv.Atoi(retries); err != nil {
		return r, exit.Usagef("--restart=%s: want a number of retries after the colon", text)
	}
	return r, nil
}

// Limits of --env and --env-file. The kernel's limit of one string is
// MAX_ARG_STRLEN in linux/binfmts.h.
const (
	maxEnvFile = 1 << 20   // bytes
	maxEnvLine = 128 << 10 // bytes
)

// environment returns the variables of the files and then those of the flags, as
// docker does.
func environment(files, flags []string) ([]string, error) {
	var out []string
	for _, name := range files {
		lines, err := readEnvFile(name)
		if err != nil {
			return nil, err
		}
		out = append(out, lines...)
	}
	for _, v := range flags {
		line, err := envLine(v)
		if err != nil {
			return nil, exit.Usagef("--env: %v", err)
		}
		out = append(out, line)
	}
	return out, nil
}

// envLine returns NAME=VALUE for text. If text is a name alone, it takes the value
// from the environment of this process. If there is none either, it returns the
// name alone, which removes the image's variable.
func envLine(text string) (string, error) {
	name, _, given := strings.Cut(text, "=")
	if name == "" || strings.ContainsAny(name, " \t") || strings.ContainsRune(text, 0) {
		return "", fmt.Errorf("%q is no variable", text)
	}
	if given {
		return text, nil
	}
	if value, ok := os.LookupEnv(name); ok {
		return name + "=" + value, nil
	}
	return name, nil
}

func readEnvFile(name string) ([]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read environment file: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > maxEnvFile {
		return nil, fmt.Errorf("read environment file %s: more than %d bytes", name, maxEnvFile)
	}
	var out []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxEnvLine)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimLeft(lines.Text(), " \t")
		if text == "" || text[0] == '#' {
			continue
		}
		line, err := envLine(text)
		if err != nil {
			return nil, fmt.Errorf("read environment file %s: line %d: %w", name, n, err)
		}
		out = append(out, line)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read environment file %s: %w", name, err)
	}
	return out, nil
}

func parseLabels(texts []string) (map[string]string, error) {
	var labels map[string]string
	for _, text := range texts {
		key, value, _ := strings.Cut(text, "=")
		if key == "" {
			return nil, exit.Usagef("--label=%s: want KEY=VALUE", text)
		}
		if labels == nil {
			labels = map[string]string{}
		}
		labels[key] = value
	}
	return labels, nil
}
