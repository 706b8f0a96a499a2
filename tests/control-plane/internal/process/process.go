// Package process starts child processes that can't outlive this one.
package process

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Starter starts processes that the kernel kills when this process ends,
// however it ends.
type Starter struct {
	requests chan request
}

type request struct {
	command *exec.Cmd
	result  chan error
}

// NewStarter returns a Starter whose thread lives as long as the program.
//
// The kernel delivers a parent-death signal when the *thread* that created the
// child ends, not the process. Go ends threads as it likes, so every child is
// created on one thread, locked to a goroutine that never returns.
func NewStarter() *Starter {
	s := &Starter{requests: make(chan request)}
	go func() {
		runtime.LockOSThread()
		for r := range s.requests {
			r.result <- r.command.Start()
		}
	}()
	return s
}

// Spec is what to start.
type Spec struct {
	Name string
	// Path of the executable. The process list shows Title in its place; Args
	// come after it.
	Path  string
	Title string
	Args  []string
	Dir   string
	Env   []string
	// LogFile gets both output streams, appended.
	LogFile string
}

// Start starts a process in a group of its own, so that a Ctrl-C in the
// terminal reaches the parent alone, which then stops its children in order.
func (s *Starter) Start(spec Spec) (*Process, error) {
	log, err := os.OpenFile(spec.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", spec.Name, err)
	}
	defer log.Close()
	command := exec.Command(spec.Path, spec.Args...)
	command.Args[0] = spec.Title
	command.Dir, command.Env = spec.Dir, spec.Env
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	r := request{command, make(chan error, 1)}
	s.requests <- r
	if err := <-r.result; err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	p := &Process{command: command, done: make(chan struct{})}
	go func() {
		p.err = command.Wait()
		close(p.done)
	}()
	return p, nil
}

// Process is a started process.
type Process struct {
	command *exec.Cmd
	done    chan struct{}
	err     error
}

// PID of the process.
func (p *Process) PID() int { return p.command.Process.Pid }

// Done is closed once the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit says how the process ended; only meaningful after Done.
func (p *Process) Exit() string {
	<-p.done
	if p.err != nil {
		return p.err.Error()
	}
	return "exit status 0"
}

// Kill ends the process at once and returns when it is gone.
func (p *Process) Kill() {
	_ = p.command.Process.Kill() // an error means that it is gone already
	<-p.done
}

// Stop asks the process to end, and kills it if it has not after the grace period.
func (p *Process) Stop(grace time.Duration) {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(grace):
		p.Kill()
	}
}
