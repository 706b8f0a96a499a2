package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"ensign.dev/ensign/tests/control-plane/internal/component"
	"ensign.dev/ensign/tests/control-plane/internal/control"
	"ensign.dev/ensign/tests/control-plane/internal/process"
)

var errTooSlow = fmt.Errorf("not ready within %s", startTimeout)

// self is this executable, even if the file was replaced since it started.
const self = "/proc/self/exe"

// start starts one component and waits until it serves.
func (s *supervisor) start(ctx context.Context, name component.Name) (*process.Process, error) {
	p, err := s.starter.Start(process.Spec{
		Name:    string(name),
		Path:    self,
		Title:   "control-plane",
		Args:    append([]string{string(name)}, component.Args(name, s.layout)...),
		Dir:     s.dir.Path,
		Env:     s.environment(),
		LogFile: component.LogFile(s.dir.Path, name),
	})
	if err != nil {
		return nil, err
	}
	s.running[name] = p
	if err := s.await(ctx, name, s.probe(name)); err != nil {
		return nil, err
	}
	return p, nil
}

// environment is all that the components inherit: no KUBECONFIG, no proxy, no
// feature gate of the caller's shell reaches them.
func (s *supervisor) environment() []string {
	environment := []string{"HOME=" + s.dir.Path, "TMPDIR=" + s.dir.Path}
	for _, name := range []string{"PATH", "GOMAXPROCS", "GOMEMLIMIT", "GOGC"} {
		if value, ok := os.LookupEnv(name); ok {
			environment = append(environment, name+"="+value)
		}
	}
	return environment
}

// probe fails until the component serves.
func (s *supervisor) probe(name component.Name) func(context.Context) error {
	switch name {
	case component.Etcd:
		return s.probeEtcd
	case component.APIServer:
		return func(ctx context.Context) error { return s.admin.Get(ctx, "/readyz") }
	default:
		return func(ctx context.Context) error { return s.controllers.Get(ctx, "/healthz") }
	}
}

func (s *supervisor) probeEtcd(ctx context.Context) error {
	// Relative, as for the components: an absolute path may be too long for a
	// socket address. Opening the folder gives a short one.
	dir, err := os.Open(s.dir.Path)
	if err != nil {
		return err
	}
	defer dir.Close()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), component.EtcdSocket))
	if err != nil {
		return err
	}
	return conn.Close()
}

// await polls until probe succeeds, the component ends, or ctx does.
func (s *supervisor) await(ctx context.Context, name component.Name, probe func(context.Context) error) error {
	p := s.running[name]
	for {
		err := probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.Done():
			return s.died(name, p)
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
				return fmt.Errorf("wait for %s: %w: %w%s", name, cause, err, s.logTail(name))
			}
			return ctx.Err()
		case <-time.After(pollInterval):
		}
	}
}

func (s *supervisor) died(name component.Name, p *process.Process) error {
	delete(s.running, name)
	return fmt.Errorf("%s ended by itself: %s%s", name, p.Exit(), s.logTail(name))
}

// logTail is the end of a component's log, which mostly says what is wrong.
func (s *supervisor) logTail(name component.Name) string {
	const lines = 12
	content, err := os.ReadFile(component.LogFile(s.dir.Path, name))
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimSpace(string(content)), "\n")
	return "\nlast lines of its log:\n  " + strings.Join(all[max(0, len(all)-lines):], "\n  ")
}

// serve obeys commands until ctx ends or a component dies unasked.
func (s *supervisor) serve(ctx context.Context) error {
	for {
		deaths, stop := s.watch()
		select {
		case <-ctx.Done():
			stop()
			return nil
		case name := <-deaths:
			stop()
			return s.died(name, s.running[name])
		case line := <-s.options.Commands:
			stop()
			if err := control.WriteLine(s.options.Stdout, s.obey(ctx, line)); err != nil {
				return err
			}
		}
	}
}

// watch reports the first death among the components that run now.
func (s *supervisor) watch() (<-chan component.Name, func()) {
	deaths := make(chan component.Name, len(component.All))
	stopped := make(chan struct{})
	for name, p := range s.running {
		go func() {
			select {
			case <-p.Done():
				deaths <- name
			case <-stopped:
			}
		}()
	}
	return deaths, func() { close(stopped) }
}

func (s *supervisor) obey(ctx context.Context, line string) control.Answer {
	command, err := control.Parse(line)
	if err != nil {
		return control.Answer{Error: err.Error()}
	}
	answer := control.Answer{Verb: command.Verb, Component: command.Component}
	p, err := s.execute(ctx, command)
	if err != nil {
		answer.Error = err.Error()
		return answer
	}
	answer.OK, answer.PID = true, p.PID()
	return answer
}

func (s *supervisor) execute(ctx context.Context, command control.Command) (*process.Process, error) {
	name := command.Component
	p, running := s.running[name]
	switch {
	case command.Verb == control.Start && running:
		return nil, fmt.Errorf("%s is running already, as process %d", name, p.PID())
	case command.Verb == control.Kill && !running:
		return nil, fmt.Errorf("%s is not running", name)
	}
	if running {
		delete(s.running, name)
		if command.Verb == control.Kill {
			p.Kill()
			return p, nil
		}
		p.Stop(stopGrace)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errTooSlow)
	defer cancel()
	p, err := s.start(ctx, name)
	if _, serving := s.running[component.APIServer]; err == nil && name == component.Etcd && serving {
		// The server notices the new etcd after a while, and refuses until then.
		err = s.await(ctx, component.APIServer, s.probe(component.APIServer))
	}
	return p, err
}

// stopAll stops etcd last: the others write to it while they end.
func (s *supervisor) stopAll() {
	var clients sync.WaitGroup
	for name, p := range s.running {
		if name != component.Etcd {
			clients.Go(func() { p.Stop(stopGrace) })
		}
	}
	clients.Wait()
	if p, ok := s.running[component.Etcd]; ok {
		p.Stop(stopGrace)
	}
	clear(s.running)
}
