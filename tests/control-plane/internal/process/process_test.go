package process

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary play the parent that dies: the parent-death
// signal can only be seen from outside.
func TestMain(m *testing.M) {
	if log := os.Getenv("PROCESS_TEST_PARENT"); log != "" {
		parent(log)
	}
	os.Exit(m.Run())
}

func parent(log string) {
	child, err := NewStarter().Start(Spec{Name: "sleep", Path: "/bin/sh", Title: "sh", Args: []string{"-c", "exec sleep 600"}, LogFile: log})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(child.PID())
	select {}
}

func start(t *testing.T, script string) (p *Process, log string) {
	t.Helper()
	log = filepath.Join(t.TempDir(), "log")
	p, err := NewStarter().Start(Spec{Name: "script", Path: "/bin/sh", Title: "sh", Args: []string{"-c", script}, LogFile: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p, log
}

// startTrapped returns once the trap is set: a signal before that would end the
// shell whatever the trap says.
func startTrapped(t *testing.T, trap string) *Process {
	t.Helper()
	p, log := start(t, trap+"; echo ready; while :; do sleep 0.01; done")
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if content, _ := os.ReadFile(log); string(content) == "ready\n" {
			return p
		}
		if time.Now().After(deadline) {
			t.Fatal("the script never set its trap")
		}
	}
}

func TestAChildDiesWithAParentThatWasKilled(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(self)
	command.Env = append(os.Environ(), "PROCESS_TEST_PARENT="+filepath.Join(t.TempDir(), "log"))
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	var child int
	if _, err := fmt.Fscan(bufio.NewReader(out), &child); err != nil {
		t.Fatal(err)
	}
	if !alive(child) {
		t.Fatal("the child never lived")
	}

	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = command.Wait()

	for deadline := time.Now().Add(30 * time.Second); alive(child); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			_ = syscall.Kill(child, syscall.SIGKILL)
			t.Fatal("the child outlived its parent")
		}
	}
}

// alive is false for a zombie too: where init reaps late, it is dead all the same.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

func TestAProcessThatHeedsTheRequestStopsWithoutBeingKilled(t *testing.T) {
	p := startTrapped(t, "trap 'exit 7' TERM")
	p.Stop(30 * time.Second)
	if got := p.Exit(); got != "exit status 7" {
		t.Errorf("it ended by %s", got)
	}
}

func TestAProcessThatIgnoresTheRequestIsKilled(t *testing.T) {
	p := startTrapped(t, "trap '' TERM")
	p.Stop(0)
	if got := p.Exit(); got != "signal: killed" {
		t.Errorf("it ended by %s", got)
	}
}

func TestTheExitStatusOfAProcessThatEndsItselfIsKnown(t *testing.T) {
	p, _ := start(t, "exit 3")
	<-p.Done()
	if got := p.Exit(); got != "exit status 3" {
		t.Errorf("it ended by %s", got)
	}
}

func TestOutputOfBothStreamsIsInTheLog(t *testing.T) {
	p, log := start(t, "echo out; echo err >&2")
	<-p.Done()
	content, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if string(content) != "out\nerr\n" {
		t.Errorf("the log holds %q", content)
	}
}

func TestAProgramThatIsMissingIsNamed(t *testing.T) {
	_, err := NewStarter().Start(Spec{Name: "etcd", Path: "/nowhere/etcd", LogFile: filepath.Join(t.TempDir(), "log")})
	if err == nil || !strings.Contains(err.Error(), "start etcd") {
		t.Errorf("got %v", err)
	}
}
