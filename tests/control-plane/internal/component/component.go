// Package component names the three processes of the control plane and says
// how each is started. It only computes; nothing here touches the system.
package component

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Name is one process of the control plane, and the first argument with which
// the program re-executes itself as that process.
type Name string

// The three processes, named as upstream names their binaries.
const (
	Etcd              Name = "etcd"
	APIServer         Name = "kube-apiserver"
	ControllerManager Name = "kube-controller-manager"
)

// All lists the processes in the order in which they start.
var All = []Name{Etcd, APIServer, ControllerManager}

// Parse turns a word of a command into a Name.
func Parse(word string) (Name, error) {
	for _, name := range All {
		if string(name) == word {
			return name, nil
		}
	}
	return "", fmt.Errorf("unknown component %q: expected one of %v", word, All)
}

// Files the components share, relative to the state folder. Every component
// runs with that folder as its working directory, which keeps the path of
// etcd's socket under the kernel's limit of 107 bytes wherever the folder is.
const (
	EtcdData       = "etcd"
	EtcdSocket     = "etcd.sock"
	EtcdPeerSocket = "etcd-peer.sock"
	AuditPolicy    = "audit-policy.yaml"
	AuditLog       = "audit.log"
	EgressSelector = "egress-selector.yaml"
	EgressSocket   = "egress.sock"
)

// controllers are those that act on what Ensign and its tests touch. Those that
// need nodes, volumes or a cloud are left out: there is no kubelet here.
var controllers = []string{
	"clusterrole-aggregation-controller",
	"cronjob-controller",
	"daemonset-controller",
	"deployment-controller",
	"disruption-controller",
	"garbage-collector-controller",
	"job-controller",
	"namespace-controller",
	"pod-garbage-collector-controller",
	"replicaset-controller",
	"root-ca-certificate-publisher-controller",
	"serviceaccount-controller",
	"serviceaccount-token-controller",
	"statefulset-controller",
}

// Layout is what the arguments depend on: absolute paths of the key material
// and the two ports.
type Layout struct {
	CACert                      string
	ServingCert                 string
	ServingKey                  string
	ServiceAccountKey           string
	ControllerManagerKubeconfig string
	APIServerPort               int
	ControllerManagerPort       int
}

// Issuer is the URL of the API server, which is the service account issuer too.
func (l Layout) Issuer() string {
	return fmt.Sprintf("https://127.0.0.1:%d", l.APIServerPort)
}

// Args are the arguments after the component's name.
func Args(name Name, l Layout) []string {
	switch name {
	case APIServer:
		return apiServerArgs(l)
	case ControllerManager:
		return controllerManagerArgs(l)
	default:
		return nil
	}
}

func apiServerArgs(l Layout) []string {
	return []string{
		"--etcd-servers=unix://" + EtcdSocket,
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", l.APIServerPort),
		"--tls-cert-file=" + l.ServingCert,
		"--tls-private-key-file=" + l.ServingKey,
		"--client-ca-file=" + l.CACert,
		"--service-account-issuer=" + l.Issuer(),
		"--api-audiences=" + l.Issuer(),
		"--service-account-jwks-uri=" + l.Issuer() + "/openid/v1/jwks",
		"--service-account-signing-key-file=" + l.ServiceAccountKey,
		"--service-account-key-file=" + l.ServiceAccountKey,
		"--service-cluster-ip-range=10.96.0.0/16",
		"--authorization-mode=RBAC",
		"--allow-privileged=true",
		// There is no network behind the Service "kubernetes".
		"--endpoint-reconciler-type=none",
		"--egress-selector-config-file=" + EgressSelector,
		"--audit-policy-file=" + AuditPolicy,
		"--audit-log-path=" + AuditLog,
		"--audit-log-format=json",
		"--audit-log-maxsize=200",
		"--audit-log-maxbackup=1",
		"--profiling=false",
	}
}

func controllerManagerArgs(l Layout) []string {
	return []string{
		"--kubeconfig=" + l.ControllerManagerKubeconfig,
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", l.ControllerManagerPort),
		"--tls-cert-file=" + l.ServingCert,
		"--tls-private-key-file=" + l.ServingKey,
		"--root-ca-file=" + l.CACert,
		"--service-account-private-key-file=" + l.ServiceAccountKey,
		"--use-service-account-credentials=true",
		"--leader-elect=false",
		"--controllers=" + strings.Join(controllers, ","),
		// A test waits for these controllers; the defaults pace a large cluster.
		"--kube-api-qps=500",
		"--kube-api-burst=1000",
		"--profiling=false",
	}
}

// LogFile is where the component's output goes.
func LogFile(dir string, name Name) string {
	return filepath.Join(dir, string(name)+".log")
}

// AuditPolicyYAML records every request once, when it is answered, with its
// user, verb, object and status, and never a body: bodies hold tokens.
const AuditPolicyYAML = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  omitManagedFields: true
`

// EgressSelectorYAML sends connections to Services into a socket: there is no
// network behind their addresses. A test that wants a Service to work listens
// there and obeys CONNECT requests. Webhooks by URL are reached directly.
const EgressSelectorYAML = `apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection:
    proxyProtocol: HTTPConnect
    transport:
      uds:
        udsName: ` + EgressSocket + "\n"
