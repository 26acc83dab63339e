// Program guest is process 1 of the machines that the tests boot. It loads the
// modules in /modules, prints on the console how long that took, and then
// executes commands from the serial port, one per line.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const portName = "test.agent"

func main() {
	defer func() {
		if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
			fmt.Println("guest: power off:", err)
		}
	}()
	if err := boot(); err != nil {
		fmt.Println("guest:", err)
		return
	}
	if cmdline, err := os.ReadFile("/proc/cmdline"); err == nil && strings.Contains(string(cmdline), "banger.probe") {
		fmt.Println("banger: probe ok")
		return
	}
	if err := serve(); err != nil {
		fmt.Println("guest:", err)
	}
}

func boot() error {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := os.MkdirAll(m[1], 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	fmt.Printf("guest: userspace at %s on %d processors\n", uptime(), runtime.NumCPU())
	modules, err := filepath.Glob("/modules/*.ko") // the names begin with a number, the load order
	if err != nil {
		return err
	}
	for _, path := range modules {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", path, err)
		}
	}
	fmt.Printf("guest: modules at %s\n", uptime())
	return nil
}

func uptime() string {
	data, _ := os.ReadFile("/proc/uptime")
	first, _, _ := strings.Cut(string(data), " ")
	return first
}

func openPort() (*os.File, error) {
	for range 1000 {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, path := range names {
			if name, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(name)) == portName {
				return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(path)), os.O_RDWR, 0)
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil, fmt.Errorf("no port named %s", portName)
}

func serve() error {
	port, err := openPort()
	if err != nil {
		return err
	}
	fmt.Printf("guest: port at %s\n", uptime())
	// Reads return EOF while no host is connected.
	for {
		lines := bufio.NewScanner(port)
		for lines.Scan() {
			answer, err := do(strings.Fields(lines.Text()))
			if err != nil {
				answer = "error: " + err.Error()
			}
			if _, err := io.WriteString(port, answer+"\n"); err != nil {
				return err
			}
			if answer == "bye" {
				return nil
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func do(words []string) (string, error) {
	if len(words) == 0 {
		return "", nil
	}
	switch words[0] {
	case "hello":
		return fmt.Sprintf("hello at %s", uptime()), nil
	case "cmdline":
		data, err := os.ReadFile("/proc/cmdline")
		return strings.TrimSpace(string(data)), err
	case "disks":
		return disks()
	case "write": // SERIAL WORD: write to the start of the disk
		return "ok", onDisk(words[1], os.O_WRONLY|os.O_SYNC, func(f *os.File) error {
			_, err := f.WriteString(words[2] + "\n")
			return err
		})
	case "read": // SERIAL: read the line at the start of the disk
		var line string
		err := onDisk(words[1], os.O_RDONLY, func(f *os.File) (err error) {
			line, err = bufio.NewReader(f).ReadString('\n')
			return err
		})
		return strings.TrimSpace(line), err
	case "say": // TEXT: print on the console
		fmt.Println(strings.Join(words[1:], " "))
		return "ok", nil
	case "panic":
		return "ok", os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
	case "reboot":
		return "ok", unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	case "poweroff":
		return "bye", nil
	}
	return "", fmt.Errorf("unknown command %q", words[0])
}

func disks() (string, error) {
	paths, err := filepath.Glob("/sys/block/vd*/serial")
	if err != nil {
		return "", err
	}
	var found []string
	for _, path := range paths {
		serial, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		ro, err := os.ReadFile(filepath.Join(filepath.Dir(path), "ro"))
		if err != nil {
			return "", err
		}
		found = append(found, strings.TrimSpace(string(serial))+"="+strings.TrimSpace(string(ro)))
	}
	return strings.Join(found, " "), nil
}

func onDisk(serial string, flags int, use func(*os.File) error) error {
	paths, err := filepath.Glob("/sys/block/vd*/serial")
	if err != nil {
		return err
	}
	for _, path := range paths {
		got, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(got)) != serial {
			continue
		}
		f, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(path)), flags, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		return use(f)
	}
	return fmt.Errorf("no disk %s", serial)
}
