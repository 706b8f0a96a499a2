package state

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestATemporaryFolderIsPrivateAndGoesWithItsOwner(t *testing.T) {
	dir, err := Temporary(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir.Path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("others may enter the folder: mode %v", info.Mode())
	}
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	if exists(dir.Path) {
		t.Error("the folder was left behind")
	}
}

func TestAFolderWhoseOwnerDiedIsSweptAndALivingOneIsKept(t *testing.T) {
	parent := t.TempDir()
	living, err := Temporary(parent)
	if err != nil {
		t.Fatal(err)
	}
	defer living.Close()
	dead := filepath.Join(parent, prefix+"dead")
	if err := os.MkdirAll(filepath.Join(dead, "etcd"), 0o700); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(parent, "something-else")
	if err := os.Mkdir(foreign, 0o700); err != nil {
		t.Fatal(err)
	}

	next, err := Temporary(parent)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()

	if exists(dead) {
		t.Error("the dead run's folder was not swept")
	}
	if !exists(living.Path) || !exists(foreign) {
		t.Error("a folder in use, or one that is not ours, was swept")
	}
}

func TestAChosenFolderIsKeptAndRefusedToASecondOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "state")
	first, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a second owner got %v, want a refusal that names the folder", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if !exists(path) {
		t.Error("the folder was removed")
	}
	again, err := Open(path)
	if err != nil {
		t.Fatalf("the folder is not free after Close: %v", err)
	}
	again.Close()
}

func TestAnAbandonedTemporaryFolderCanBeRead(t *testing.T) {
	dir, err := Temporary(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.Abandon(); err != nil {
		t.Fatal(err)
	}
	if !exists(dir.Path) {
		t.Error("the folder is gone")
	}
}

func TestPortsAreKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ports.json")
	first, err := KeepPorts(file, 0)
	if err != nil {
		t.Fatal(err)
	}
	if first.APIServer == first.ControllerManager {
		t.Errorf("both components got port %d", first.APIServer)
	}
	second, err := KeepPorts(file, 0)
	if err != nil || second != first {
		t.Errorf("the second start got %v, %v; want %v", second, err, first)
	}
}

func TestAKeptPortThatIsTakenIsRefusedByNumber(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	file := filepath.Join(t.TempDir(), "ports.json")
	content := `{"kube-apiserver":` + port + `,"kube-controller-manager":10001}`
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := KeepPorts(file, 0); err == nil || !strings.Contains(err.Error(), port) {
		t.Errorf("got %v, want a refusal that names port %s", err, port)
	}
}

func TestAKeptPortThatIsOnItsWayToBeFreeIsWaitedFor(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	if becomesFree(port, 0) {
		t.Fatal("a port in use is called free")
	}
	go listener.Close()
	if !becomesFree(port, time.Minute) {
		t.Error("a port that was given up is called taken")
	}
}

func TestADamagedPortsFileIsRefused(t *testing.T) {
	for _, content := range []string{"", "{}", `{"kube-apiserver":0,"kube-controller-manager":1}`, `{"kube-apiserver":70000,"kube-controller-manager":1}`} {
		if ports, err := parsePorts([]byte(content)); err == nil {
			t.Errorf("parsePorts(%q) = %v, want an error", content, ports)
		}
	}
}

func TestPortsComeFromOutsideTheEphemeralRange(t *testing.T) {
	for _, c := range []struct {
		ephemeral string
		low, high int
	}{
		{"32768\t60999\n", 10000, 32767},
		{"20000 60999", 10000, 19999},
		{"10100 60999", 10000, 32767}, // too little is left below it
		{"", 10000, 32767},
		{"nonsense", 10000, 32767},
	} {
		if low, high := candidates(c.ephemeral); low != c.low || high != c.high {
			t.Errorf("candidates(%q) = %d..%d, want %d..%d", c.ephemeral, low, high, c.low, c.high)
		}
	}
}
