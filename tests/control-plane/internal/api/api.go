// Package api is the little that the program itself asks of the API server:
// whether it serves, and one role binding.
package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// requestTimeout bounds one request; whoever waits for readiness asks again.
const requestTimeout = 5 * time.Second

// Client speaks to one server as the holder of one client certificate.
type Client struct {
	server string
	http   *http.Client
}

// New makes a client from PEM.
func New(server string, ca, cert, key []byte) (*Client, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("read the CA certificate: no certificate in it")
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("read the client certificate: %w", err)
	}
	return &Client{server, &http.Client{
		Timeout: requestTimeout,
		Transport: &http.Transport{
			Proxy:           nil, // loopback only
			TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		},
	}}, nil
}

// Get succeeds if the server answers 200.
func (c *Client) Get(ctx context.Context, path string) error {
	return c.do(ctx, http.MethodGet, path, nil, http.StatusOK)
}

// discoveryBinding lets everybody read the issuer's discovery document and
// keys. By default service accounts alone may, but whoever verifies a token
// from outside, as Entra does, comes without one.
const discoveryBinding = `{
  "apiVersion": "rbac.authorization.k8s.io/v1",
  "kind": "ClusterRoleBinding",
  "metadata": {"name": "service-account-issuer-discovery-for-everyone"},
  "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:service-account-issuer-discovery"},
  "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:unauthenticated"}]
}`

// PublishIssuer makes the issuer's discovery document readable without
// credentials, unless an earlier start did.
func (c *Client) PublishIssuer(ctx context.Context) error {
	const path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
	return c.do(ctx, http.MethodPost, path, []byte(discoveryBinding), http.StatusCreated, http.StatusConflict)
}

func (c *Client) do(ctx context.Context, method, path string, body []byte, accepted ...int) error {
	request, err := http.NewRequestWithContext(ctx, method, c.server+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "ensign-control-plane")
	response, err := c.http.Do(request)
	if err != nil {
		return err // names method and URL itself
	}
	defer response.Body.Close()
	const enough = 2048
	answer, err := io.ReadAll(io.LimitReader(response.Body, enough))
	if err != nil {
		return fmt.Errorf("%s %s: read the answer: %w", method, path, err)
	}
	for _, status := range accepted {
		if response.StatusCode == status {
			return nil
		}
	}
	return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, bytes.TrimSpace(answer))
}
