package component

import (
	"slices"
	"strings"
	"testing"
)

var layout = Layout{
	CACert:                      "/state/ca.crt",
	ServingCert:                 "/state/serving.crt",
	ServingKey:                  "/state/serving.key",
	ServiceAccountKey:           "/state/service-account.key",
	ControllerManagerKubeconfig: "/state/kube-controller-manager.kubeconfig",
	APIServerPort:               20001,
	ControllerManagerPort:       20002,
}

func TestParseAcceptsEveryComponentAndNothingElse(t *testing.T) {
	for _, name := range All {
		if got, err := Parse(string(name)); err != nil || got != name {
			t.Errorf("Parse(%q) = %q, %v", name, got, err)
		}
	}
	for _, word := range []string{"", "kubelet", "ETCD", "etcd "} {
		if got, err := Parse(word); err == nil {
			t.Errorf("Parse(%q) = %q, want an error", word, got)
		}
	}
}

func TestTheIssuerIsTheServerOnItsOwnPort(t *testing.T) {
	args := Args(APIServer, layout)
	for _, want := range []string{
		"--secure-port=20001",
		"--service-account-issuer=https://127.0.0.1:20001",
		"--api-audiences=https://127.0.0.1:20001",
		"--service-account-jwks-uri=https://127.0.0.1:20001/openid/v1/jwks",
	} {
		if !slices.Contains(args, want) {
			t.Errorf("kube-apiserver is started without %s", want)
		}
	}
}

func TestEveryComponentListensOnLoopbackOnly(t *testing.T) {
	for _, name := range []Name{APIServer, ControllerManager} {
		if !slices.Contains(Args(name, layout), "--bind-address=127.0.0.1") {
			t.Errorf("%s is not bound to loopback", name)
		}
	}
	if !slices.Contains(Args(APIServer, layout), "--etcd-servers=unix://etcd.sock") {
		t.Error("etcd is reached otherwise than by its socket")
	}
}

func TestTokensAreSignedByTheKeyThatTheServerPublishes(t *testing.T) {
	args := Args(APIServer, layout)
	for _, flag := range []string{"--service-account-signing-key-file=", "--service-account-key-file="} {
		if !slices.Contains(args, flag+layout.ServiceAccountKey) {
			t.Errorf("%s is not the service account key", flag)
		}
	}
}

func TestAuditPolicyNeverRecordsBodies(t *testing.T) {
	if strings.Contains(AuditPolicyYAML, "level: Request") {
		t.Error("the audit policy records bodies")
	}
}

func TestOnlyConnectionsToServicesGoIntoTheSocket(t *testing.T) {
	if !slices.Contains(Args(APIServer, layout), "--egress-selector-config-file="+EgressSelector) {
		t.Error("kube-apiserver is started without the egress selector")
	}
	if got := strings.Count(EgressSelectorYAML, "- name:"); got != 1 || !strings.Contains(EgressSelectorYAML, "- name: cluster\n") {
		t.Errorf("the egress selector is for more than the cluster:\n%s", EgressSelectorYAML)
	}
	if !strings.HasSuffix(EgressSelectorYAML, "udsName: egress.sock\n") {
		t.Errorf("the egress selector names another socket:\n%s", EgressSelectorYAML)
	}
}
