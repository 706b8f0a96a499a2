package kubeconfig

import (
	"strings"
	"testing"
)

func TestEveryPartStandsWhereClientsLookForIt(t *testing.T) {
	got := string(Render("https://127.0.0.1:20001", "kubernetes-admin", []byte("ca"), []byte("cert"), []byte("key")))
	for _, want := range []string{
		"    server: https://127.0.0.1:20001\n",
		"    certificate-authority-data: Y2E=\n",
		"    client-certificate-data: Y2VydA==\n",
		"    client-key-data: a2V5\n",
		"- name: kubernetes-admin\n",
		"    user: kubernetes-admin\n",
		"current-context: ensign-test\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
