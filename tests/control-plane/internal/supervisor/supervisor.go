// Package supervisor runs the components of one control plane as child
// processes: it prepares their files, starts them in order, waits until each
// serves, obeys commands, and stops them all.
//
//	etcd  <-- Unix socket --  kube-apiserver  <-- https, loopback --  kube-controller-manager
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"ensign.dev/ensign/tests/control-plane/internal/api"
	"ensign.dev/ensign/tests/control-plane/internal/component"
	"ensign.dev/ensign/tests/control-plane/internal/control"
	"ensign.dev/ensign/tests/control-plane/internal/kubeconfig"
	"ensign.dev/ensign/tests/control-plane/internal/pki"
	"ensign.dev/ensign/tests/control-plane/internal/process"
	"ensign.dev/ensign/tests/control-plane/internal/state"
)

const (
	adminKubeconfig      = "kubeconfig"
	controllerKubeconfig = "kube-controller-manager.kubeconfig"
	portsFile            = "ports.json"

	// startTimeout is generous: the machine may be compiling at the same time.
	startTimeout = 3 * time.Minute
	pollInterval = 25 * time.Millisecond
	// stopGrace is what a component gets to end by itself. None needs it, since
	// etcd's data survives a kill; kube-apiserver would use far more of it, to
	// wait for watches that nobody here is going to end.
	stopGrace = time.Second
	// portPatience is how long a start waits for what a killed run still holds.
	portPatience = 15 * time.Second
)

// Options of a run.
type Options struct {
	// Dir keeps the state; empty for a temporary folder.
	Dir string
	// Commands are lines to obey; nil for none.
	Commands <-chan string
	Stdout   io.Writer
	Stderr   io.Writer
}

// Run runs a control plane until ctx ends, which is a success, or until
// something fails.
func Run(ctx context.Context, options Options) (err error) {
	dir, err := open(options.Dir)
	if err != nil {
		return err
	}
	s := &supervisor{dir: dir, options: options, starter: process.NewStarter(), running: map[component.Name]*process.Process{}}
	defer func() {
		s.stopAll()
		if err == nil || ctx.Err() != nil {
			err = errors.Join(ignoreInterrupt(ctx, err), dir.Close())
			return
		}
		err = errors.Join(err, dir.Abandon())
		fmt.Fprintf(options.Stderr, "The logs are in %s\n", dir.Path)
	}()
	if err := s.prepare(); err != nil {
		return err
	}
	if err := s.startAll(ctx); err != nil {
		return err
	}
	return s.serve(ctx)
}

func open(dir string) (*state.Dir, error) {
	if dir == "" {
		return state.Temporary(os.TempDir())
	}
	return state.Open(dir)
}

// ignoreInterrupt drops the error of a wait that the end of ctx cut short.
func ignoreInterrupt(ctx context.Context, err error) error {
	if errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

type supervisor struct {
	dir     *state.Dir
	options Options
	layout  component.Layout
	starter *process.Starter
	running map[component.Name]*process.Process
	// admin speaks to the API server, controllers to the controller manager.
	admin       *api.Client
	controllers *api.Client
}

// prepare writes every file that the components read.
func (s *supervisor) prepare() error {
	if err := pki.Ensure(s.dir.Path, time.Now()); err != nil {
		return err
	}
	ports, err := state.KeepPorts(s.dir.File(portsFile), portPatience)
	if err != nil {
		return err
	}
	s.layout = component.Layout{
		CACert:                      s.dir.File(pki.CACert),
		ServingCert:                 s.dir.File(pki.ServingCert),
		ServingKey:                  s.dir.File(pki.ServingKey),
		ServiceAccountKey:           s.dir.File(pki.ServiceAccountKey),
		ControllerManagerKubeconfig: s.dir.File(controllerKubeconfig),
		APIServerPort:               ports.APIServer,
		ControllerManagerPort:       ports.ControllerManager,
	}
	for name, content := range map[string]string{
		component.AuditPolicy:    component.AuditPolicyYAML,
		component.EgressSelector: component.EgressSelectorYAML,
	} {
		if err := s.write(name, []byte(content)); err != nil {
			return err
		}
	}
	ca, err := s.read(pki.CACert)
	if err != nil {
		return err
	}
	for _, user := range []struct{ name, cert, key, file string }{
		{pki.AdminUser, pki.AdminCert, pki.AdminKey, adminKubeconfig},
		{string(component.ControllerManager), pki.ControllerManagerCert, pki.ControllerManagerKey, controllerKubeconfig},
	} {
		cert, err := s.read(user.cert)
		if err != nil {
			return err
		}
		key, err := s.read(user.key)
		if err != nil {
			return err
		}
		if err := s.write(user.file, kubeconfig.Render(s.layout.Issuer(), user.name, ca, cert, key)); err != nil {
			return err
		}
		if user.file != adminKubeconfig {
			continue
		}
		if s.admin, err = api.New(s.layout.Issuer(), ca, cert, key); err != nil {
			return err
		}
		controllers := fmt.Sprintf("https://127.0.0.1:%d", ports.ControllerManager)
		if s.controllers, err = api.New(controllers, ca, cert, key); err != nil {
			return err
		}
	}
	return nil
}

func (s *supervisor) read(name string) ([]byte, error) {
	content, err := os.ReadFile(s.dir.File(name))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return content, nil
}

func (s *supervisor) write(name string, content []byte) error {
	if err := os.WriteFile(s.dir.File(name), content, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// startAll starts the components one after the other and announces them.
func (s *supervisor) startAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errTooSlow)
	defer cancel()
	ready := control.Ready{
		Kubeconfig:   s.dir.File(adminKubeconfig),
		Server:       s.layout.Issuer(),
		CAFile:       s.layout.CACert,
		Issuer:       s.layout.Issuer(),
		Dir:          s.dir.Path,
		AuditLog:     s.dir.File(component.AuditLog),
		EgressSocket: s.dir.File(component.EgressSocket),
		PIDs:         map[component.Name]int{},
	}
	for _, name := range component.All {
		p, err := s.start(ctx, name)
		if err != nil {
			return err
		}
		ready.PIDs[name] = p.PID()
		if name == component.APIServer {
			if err := s.admin.PublishIssuer(ctx); err != nil {
				return fmt.Errorf("publish the issuer's discovery document: %w", err)
			}
		}
	}
	// No pod can be created before its namespace has these two: the first waits
	// for the controllers to have begun their work.
	for _, path := range []string{
		"/api/v1/namespaces/default/serviceaccounts/default",
		"/api/v1/namespaces/default/configmaps/kube-root-ca.crt",
	} {
		err := s.await(ctx, component.ControllerManager, func(ctx context.Context) error { return s.admin.Get(ctx, path) })
		if err != nil {
			return err
		}
	}
	return control.WriteLine(s.options.Stdout, ready)
}
