// Package control is the line protocol of the program's standard streams: the
// line that says that the control plane is ready, and the commands with which a
// fault test stops and starts single components.
package control

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"ensign.dev/ensign/tests/control-plane/internal/component"
)

// Ready is the one line on standard output when the control plane can be used.
type Ready struct {
	Kubeconfig string `json:"kubeconfig"`
	Server     string `json:"server"`
	CAFile     string `json:"ca_file"`
	Issuer     string `json:"issuer"`
	Dir        string `json:"dir"`
	AuditLog   string `json:"audit_log"`
	// EgressSocket is where the API server asks for connections to Services, by
	// HTTP CONNECT; nobody listens there unless a test does.
	EgressSocket string                 `json:"egress_socket"`
	PIDs         map[component.Name]int `json:"pids"`
}

// Verb is what a command does to a component.
type Verb string

// The verbs. Restart and Start answer once the component serves again; Kill
// sends SIGKILL and answers once the process is gone.
const (
	Restart Verb = "restart"
	Kill    Verb = "kill"
	Start   Verb = "start"
)

// Command is one line of standard input.
type Command struct {
	Verb      Verb
	Component component.Name
}

// Answer is the line on standard output for each Command.
type Answer struct {
	OK        bool           `json:"ok"`
	Verb      Verb           `json:"verb,omitempty"`
	Component component.Name `json:"component,omitempty"`
	PID       int            `json:"pid,omitempty"`
	Error     string         `json:"error,omitempty"`
}

// Parse reads a line such as "restart kube-apiserver".
func Parse(line string) (Command, error) {
	words := strings.Fields(line)
	if len(words) != 2 {
		return Command{}, fmt.Errorf("expected a verb and a component, such as %q, got %q", "restart kube-apiserver", line)
	}
	verb := Verb(words[0])
	switch verb {
	case Restart, Kill, Start:
	default:
		return Command{}, fmt.Errorf("unknown verb %q: expected restart, kill or start", words[0])
	}
	name, err := component.Parse(words[1])
	if err != nil {
		return Command{}, err
	}
	return Command{Verb: verb, Component: name}, nil
}

// WriteLine writes v as one line of JSON, in one write.
func WriteLine(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a line of output: %w", err)
	}
	if _, err := w.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write a line of output: %w", err)
	}
	return nil
}
