package clients

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const (
	shop      = "system:serviceaccount:shop:orders"
	clientID  = "11111111-0000-4000-8000-000000000001"
	principal = "11111111-0000-4000-8000-000000000002"
)

// An emulator is a running ensign-azure-emulator; it stops when its stdin is closed.
type emulator struct {
	ARMEndpoint    string `json:"arm_endpoint"`
	AuthorityHost  string `json:"authority_host"`
	CAFile         string `json:"ca_file"`
	TenantID       string `json:"tenant_id"`
	SubscriptionID string `json:"subscription_id"`
	ResourceGroup  string `json:"resource_group"`
	command        *exec.Cmd
	stdin          io.Closer
}

var (
	azure   *emulator
	trusted *issuer
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	folder, err := os.MkdirTemp("", "ensign-go-")
	if err == nil {
		defer os.RemoveAll(folder)
		trusted, err = startIssuer()
	}
	if err == nil {
		defer trusted.server.Close()
		azure, err = startEmulator(folder)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// Go reads it when it verifies the first certificate.
	os.Setenv("SSL_CERT_FILE", azure.CAFile)
	status := m.Run()
	azure.stdin.Close()
	if err := azure.command.Wait(); err != nil {
		fmt.Fprintln(os.Stderr, "the emulator:", err)
		return 1
	}
	return status
}

func startEmulator(folder string) (*emulator, error) {
	binary := os.Getenv("ENSIGN_AZURE_EMULATOR_BIN")
	if binary == "" {
		binary = filepath.Join("..", "..", "..", "target", "debug", "ensign-azure-emulator")
	}
	ca := filepath.Join(folder, "issuer.crt")
	if err := os.WriteFile(ca, trusted.certificate, 0o600); err != nil {
		return nil, err
	}
	command := exec.Command(binary, "--stop-on-stdin-eof", "--issuer-ca-file", ca)
	command.Stderr = os.Stderr
	stdin, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	started := &emulator{command: command, stdin: stdin}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("%s did not start: %w", binary, err)
	}
	return started, json.Unmarshal(line, started)
}

// seed replaces the emulator's state: the identity `orders` trusts one subject and may do everything in ARM.
func seed(t *testing.T, more map[string]any) {
	t.Helper()
	state := map[string]any{
		"writeLatencyMs": 0,
		"identities": []map[string]any{{
			"name": "orders", "clientId": clientID, "principalId": principal, "armRights": "all",
			"federatedIdentityCredentials": []map[string]any{{"name": "trust", "issuer": trusted.url, "subject": shop}},
		}},
	}
	for name, value := range more {
		state[name] = value
	}
	control(t, "state", state)
	control(t, "faults", []any{})
}

func control(t *testing.T, path string, body any) {
	t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequest(http.MethodPut, azure.ARMEndpoint+"/_emulator/"+path, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		text, _ := io.ReadAll(answer.Body)
		t.Fatalf("PUT %s: %s: %s", path, answer.Status, text)
	}
}
