// Package kubeconfig renders a client configuration for one user of one cluster.
package kubeconfig

import (
	"encoding/base64"
	"fmt"
)

// Render returns a self-contained kubeconfig: it names no other file, so it can
// be copied, and nothing in it depends on where the reader stands.
func Render(server, user string, ca, cert, key []byte) []byte {
	data := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: ensign-test
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: %s
  user:
    client-certificate-data: %s
    client-key-data: %s
contexts:
- name: ensign-test
  context:
    cluster: ensign-test
    user: %s
current-context: ensign-test
`, server, data(ca), user, data(cert), data(key), user)
}
