// Package servertest runs a real quantd server for tests.
//
// The environment variable QUANTD_PYTHON names a Python that has what the server needs; without it
// tests skip. Checkpoints are those of the server's own tests.
package servertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// pythonVariable names a Python that can run the server.
const pythonVariable = "QUANTD_PYTHON"

const (
	startTimeout = time.Minute
	stopTimeout  = 30 * time.Second
)

// Server is a server process that can be ended and started again, with the same address and the same
// jobs.
type Server struct {
	// Folder is its source root and its output root.
	Folder string
	// Address is where it listens, or listened last.
	Address string

	options []string
	process *exec.Cmd
}

// Start runs a server on a unix socket until the test ends. Options are those of `quantd serve`.
func Start(t testing.TB, options ...string) *Server {
	t.Helper()
	return StartAt(t, "", options...)
}

// StartAt is Start at an address of one's own, such as "127.0.0.1:0".
func StartAt(t testing.TB, address string, options ...string) *Server {
	t.Helper()
	SkipWithoutPython(t)
	// Not t.TempDir(): a socket's path has at most 107 bytes.
	folder, err := os.MkdirTemp("", "quantd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	if address == "" {
		address = "unix:" + folder + "/socket"
	}
	server := &Server{Folder: folder, Address: address, options: options}
	t.Cleanup(func() {
		server.Kill(t)
		if t.Failed() {
			log, _ := os.ReadFile(server.path(".log"))
			t.Logf("end of the server's log:\n%s", log[max(0, len(log)-4096):])
		}
	})
	server.StartAgain(t)
	return server
}

// SkipWithoutPython skips a test that needs a server where none can run.
func SkipWithoutPython(t testing.TB) {
	t.Helper()
	if os.Getenv(pythonVariable) == "" {
		t.Skipf("%s is not set to a Python that can run the server", pythonVariable)
	}
}

// StartAgain starts the server and waits until it serves.
func (s *Server) StartAgain(t testing.TB) {
	t.Helper()
	ready := s.path(".ready")
	os.Remove(ready)
	log, err := os.OpenFile(s.path(".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	arguments := append([]string{
		"-m", "quantd_server", "serve", "--listen=" + s.Address, "--ready-file=" + ready, "--state=" + s.path("state"),
		"--source-root=" + s.Folder, "--output-root=" + s.Folder, "--threads=1",
	}, s.options...)
	s.process = python(context.Background(), arguments...)
	s.process.Stdout, s.process.Stderr = log, log
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	var exited atomic.Bool
	process := s.process
	go func() {
		process.Wait()
		exited.Store(true)
	}()
	for end := time.Now().Add(startTimeout); ; time.Sleep(10 * time.Millisecond) {
		if text, err := os.ReadFile(ready); err == nil {
			s.Address = strings.Fields(string(text))[0]
			return
		}
		if exited.Load() || time.Now().After(end) {
			t.Fatalf("the server did not start; its log is below")
		}
	}
}

// Kill ends the server as a crash does.
func (s *Server) Kill(t testing.TB) { s.end(t, syscall.SIGKILL) }

// Stop ends the server in order.
func (s *Server) Stop(t testing.TB) { s.end(t, syscall.SIGTERM) }

func (s *Server) end(t testing.TB, signal syscall.Signal) {
	t.Helper()
	if s.process == nil {
		return
	}
	process := s.process.Process
	s.process = nil
	if err := process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("cannot signal the server: %v", err)
	}
	for end := time.Now().Add(stopTimeout); process.Signal(syscall.Signal(0)) == nil; {
		if time.Now().After(end) {
			t.Errorf("the server did not end within %s", stopTimeout)
			process.Kill()
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Path is the path of a file below the server's folder.
func (s *Server) Path(name string) string { return s.path(name) }

func (s *Server) path(name string) string { return filepath.Join(s.Folder, name) }

// WriteSmall writes a checkpoint of so many decoder blocks that quantizes in no time.
func (s *Server) WriteSmall(t testing.TB, name string, blocks int) string {
	return s.write(t, name, fmt.Sprintf("tiny_models.write(folder, layers=%d)", blocks))
}

// WriteSlow writes a checkpoint that takes a worker seconds, as IQ4_XS.
func (s *Server) WriteSlow(t testing.TB, name string) string {
	return s.write(t, name, "tiny_models.write_slow(folder)")
}

func (s *Server) write(t testing.TB, name, call string) string {
	t.Helper()
	program := "import sys, pathlib; from tests import tiny_models; " +
		"folder = pathlib.Path(sys.argv[1]); " + call
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if output, err := python(ctx, "-c", program, s.path(name)).CombinedOutput(); err != nil {
		t.Fatalf("cannot write a checkpoint: %v\n%s", err, output)
	}
	return s.path(name)
}

// python is a command that can import the server and its tests, whatever is installed, without the
// settings of other servers.
func python(ctx context.Context, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, os.Getenv(pythonVariable), arguments...)
	command.Dir = repository()
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "QUANTD_") && !strings.HasPrefix(variable, "PYTHONPATH=") {
			command.Env = append(command.Env, variable)
		}
	}
	sources := filepath.Join(repository(), "server") + string(os.PathListSeparator) +
		filepath.Join(repository(), "clients/python/src")
	command.Env = append(command.Env, "PYTHONPATH="+sources)
	return command
}

// repository is the root of the repository that this file is part of.
func repository() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "../../../..")
}
