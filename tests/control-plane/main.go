// Command control-plane runs a real Kubernetes control plane for Ensign's tests
// and demo: etcd, kube-apiserver and kube-controller-manager, built from the
// released Go modules, without nodes.
//
// It is one program that re-executes itself as each component. They are
// processes of their own because feature gates, metrics and signal handlers are
// process-wide upstream, and because a fault test wants to kill one of them.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"ensign.dev/ensign/tests/control-plane/internal/component"
	"ensign.dev/ensign/tests/control-plane/internal/supervisor"
)

const usage = `usage: control-plane run [--dir DIR] [--stop-on-stdin-eof]

Runs etcd, kube-apiserver and kube-controller-manager on loopback until SIGTERM
or SIGINT. Prints one line of JSON on standard output once it can be used.

  --dir DIR              keep the state in DIR; a later run with the same DIR is the
                         same cluster with the same issuer (default: a temporary
                         folder, removed at the end)
  --stop-on-stdin-eof    stop when standard input ends, and obey its lines:
                         (restart | kill | start) (etcd | kube-apiserver |
                         kube-controller-manager), each answered by a line of JSON
`

func main() {
	// The first argument decides before any command of Kubernetes is
	// constructed: constructing one sets process-wide state.
	var first string
	if len(os.Args) > 1 {
		first = os.Args[1]
	}
	switch first {
	case string(component.Etcd):
		os.Exit(runEtcd())
	case string(component.APIServer):
		os.Exit(runAPIServer())
	case string(component.ControllerManager):
		os.Exit(runControllerManager())
	case "run":
		os.Exit(run(os.Args[2:]))
	case "help", "--help", "-h":
		fmt.Print(usage)
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
}

func run(args []string) int {
	flags := flag.NewFlagSet("control-plane run", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	dir := flags.String("dir", "", "")
	stopOnEOF := flags.Bool("stop-on-stdin-eof", false, "")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "control-plane: unexpected argument %q\n", flags.Arg(0))
		return 2
	}

	ctx, stop := signal.NotifyContext(context.Background(), stopSignals()...)
	defer stop()
	options := supervisor.Options{Dir: *dir, Stdout: os.Stdout, Stderr: os.Stderr}
	if *stopOnEOF {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		options.Commands = readLines(os.Stdin, cancel)
	}
	if err := supervisor.Run(ctx, options); err != nil {
		fmt.Fprintf(os.Stderr, "control-plane: %v\n", err)
		return 1
	}
	return 0
}

// stopSignals leaves SIGHUP alone where the caller had it ignored, as nohup does.
func stopSignals() []os.Signal {
	signals := []os.Signal{syscall.SIGTERM, syscall.SIGINT}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// readLines passes lines on until the input ends, and then calls atEnd. The end
// of standard input is how a parent's death is noticed, even by SIGKILL.
func readLines(input io.Reader, atEnd func()) <-chan string {
	// Buffered, so that the end is noticed behind commands not yet obeyed.
	lines := make(chan string, 64)
	go func() {
		defer atEnd()
		scanner := bufio.NewScanner(input)
		for scanner.Scan() {
			lines <- scanner.Text()
		}
	}()
	return lines
}
