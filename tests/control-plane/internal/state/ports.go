package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"
)

// Ports of one control plane. They are kept, because the API server's is part
// of the issuer in every token: a restart on another port is another cluster.
type Ports struct {
	APIServer         int `json:"kube-apiserver"`
	ControllerManager int `json:"kube-controller-manager"`
}

// KeepPorts returns the ports recorded in file, or chooses free ones and
// records them. A recorded port that is still taken after patience is an error:
// right after a kill, the processes of the run before are on their way out.
func KeepPorts(file string, patience time.Duration) (Ports, error) {
	content, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return chooseAndRecord(file)
	case err != nil:
		return Ports{}, fmt.Errorf("read the recorded ports: %w", err)
	}
	ports, err := parsePorts(content)
	if err != nil {
		return Ports{}, fmt.Errorf("read the recorded ports in %s: %w", file, err)
	}
	for _, port := range []int{ports.APIServer, ports.ControllerManager} {
		if !becomesFree(port, patience) {
			return Ports{}, fmt.Errorf("port %d, on which this cluster's issuer rests, is taken: stop what listens there, or choose another folder", port)
		}
	}
	return ports, nil
}

func chooseAndRecord(file string) (Ports, error) {
	first, err := choose(0)
	if err != nil {
		return Ports{}, err
	}
	second, err := choose(first)
	if err != nil {
		return Ports{}, err
	}
	ports := Ports{APIServer: first, ControllerManager: second}
	content, err := json.Marshal(ports)
	if err != nil {
		return Ports{}, fmt.Errorf("record the ports: %w", err)
	}
	if err := os.WriteFile(file, append(content, '\n'), 0o600); err != nil {
		return Ports{}, fmt.Errorf("record the ports: %w", err)
	}
	return ports, nil
}

func parsePorts(content []byte) (Ports, error) {
	var ports Ports
	if err := json.Unmarshal(content, &ports); err != nil {
		return Ports{}, err
	}
	for _, port := range []int{ports.APIServer, ports.ControllerManager} {
		if port < 1 || port > 65535 {
			return Ports{}, fmt.Errorf("%d is not a port", port)
		}
	}
	return ports, nil
}

// The range in which ports are chosen, before the kernel's own is taken out.
const lowestPort, highestPort = 10000, 32767

// choose picks a free port other than taken. It stays outside the range from
// which the kernel gives ports to outgoing connections: while a component is
// down for a restart, any connection of any process could otherwise take its port.
func choose(taken int) (int, error) {
	content, _ := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	low, high := candidates(string(content))
	const attempts = 200
	for range attempts {
		port := low + rand.IntN(high-low+1)
		if port != taken && free(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("found no free port between %d and %d on 127.0.0.1 in %d attempts", low, high, attempts)
}

// candidates is the range below the kernel's ephemeral one, or the whole range
// where the kernel's leaves too little of it.
func candidates(ephemeral string) (low, high int) {
	low, high = lowestPort, highestPort
	var first, last int
	if n, _ := fmt.Sscan(strings.TrimSpace(ephemeral), &first, &last); n == 2 && first <= high {
		const enough = 1000
		if first-1-low >= enough {
			high = first - 1
		}
	}
	return low, high
}

func becomesFree(port int, patience time.Duration) bool {
	const pollInterval = 20 * time.Millisecond
	for deadline := time.Now().Add(patience); !free(port); time.Sleep(pollInterval) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

func free(port int) bool {
	listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	listener.Close()
	return true
}
