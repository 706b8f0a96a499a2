package control

import (
	"bytes"
	"strings"
	"testing"

	"ensign.dev/ensign/tests/control-plane/internal/component"
)

func TestACommandIsAVerbAndAComponent(t *testing.T) {
	for line, want := range map[string]Command{
		"restart kube-apiserver":        {Restart, component.APIServer},
		"  kill   etcd ":                {Kill, component.Etcd},
		"start kube-controller-manager": {Start, component.ControllerManager},
	} {
		if got, err := Parse(line); err != nil || got != want {
			t.Errorf("Parse(%q) = %v, %v", line, got, err)
		}
	}
}

func TestAnythingElseIsRefusedByName(t *testing.T) {
	for line, named := range map[string]string{
		"":                        "verb",
		"restart":                 "component",
		"stop etcd":               `"stop"`,
		"restart kubelet":         `"kubelet"`,
		"restart etcd now please": "now please",
	} {
		if got, err := Parse(line); err == nil || !strings.Contains(err.Error(), named) {
			t.Errorf("Parse(%q) = %v, %v; want an error that names %s", line, got, err, named)
		}
	}
}

func TestAnAnswerIsOneLine(t *testing.T) {
	var out bytes.Buffer
	if err := WriteLine(&out, Answer{Error: "first\nsecond"}); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), `{"ok":false,"error":"first\nsecond"}`+"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
