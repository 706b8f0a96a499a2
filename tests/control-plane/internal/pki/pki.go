// Package pki makes the keys and certificates of one control plane: a CA, a
// serving certificate for loopback, client certificates, and the RSA key that
// signs service account tokens.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Names of the files in the state folder.
const (
	CACert                = "ca.crt"
	ServingCert           = "serving.crt"
	ServingKey            = "serving.key"
	ServiceAccountKey     = "service-account.key"
	AdminCert             = "admin.crt"
	AdminKey              = "admin.key"
	ControllerManagerCert = "kube-controller-manager.crt"
	ControllerManagerKey  = "kube-controller-manager.key"
)

// AdminUser is who the administrator's certificate says it is, and so the name
// under which its requests stand in the audit log.
const AdminUser = "kubernetes-admin"

const (
	validity      = 10 * 365 * 24 * time.Hour
	clockSkew     = time.Hour
	rsaBits       = 2048
	controllerCN  = "system:kube-controller-manager"
	mastersGroup  = "system:masters"
	authorityName = "ensign-test-control-plane"
)

// Ensure makes all files in dir unless an earlier start made them: clients of a
// kept control plane go on trusting it, and its tokens stay valid.
func Ensure(dir string, now time.Time) error {
	_, err := os.Stat(filepath.Join(dir, CACert))
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for the CA certificate: %w", err)
	}
	files, err := Generate(now)
	if err != nil {
		return err
	}
	// The CA certificate says that the rest is complete: it is written last.
	for name, content := range files {
		if name != CACert {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				return fmt.Errorf("write %s: %w", name, err)
			}
		}
	}
	partial := filepath.Join(dir, CACert+".partial")
	if err := os.WriteFile(partial, files[CACert], 0o644); err != nil {
		return fmt.Errorf("write %s: %w", CACert, err)
	}
	if err := os.Rename(partial, filepath.Join(dir, CACert)); err != nil {
		return fmt.Errorf("write %s: %w", CACert, err)
	}
	return nil
}

// Generate returns the content of each file by name, in PEM. The CA's private
// key is not among them: nothing is ever issued again.
func Generate(now time.Time) (map[string][]byte, error) {
	authority, err := newAuthority(now)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{CACert: encode("CERTIFICATE", authority.certificate.Raw)}

	serving := authority.template(now, pkix.Name{CommonName: "kube-apiserver"}, x509.ExtKeyUsageServerAuth)
	serving.DNSNames = []string{
		"localhost",
		"kubernetes",
		"kubernetes.default",
		"kubernetes.default.svc",
		"kubernetes.default.svc.cluster.local",
	}
	serving.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	admin := authority.template(now, pkix.Name{CommonName: AdminUser, Organization: []string{mastersGroup}}, x509.ExtKeyUsageClientAuth)
	controllers := authority.template(now, pkix.Name{CommonName: controllerCN}, x509.ExtKeyUsageClientAuth)

	for _, leaf := range []struct {
		template      *x509.Certificate
		cert, keyFile string
	}{
		{serving, ServingCert, ServingKey},
		{admin, AdminCert, AdminKey},
		{controllers, ControllerManagerCert, ControllerManagerKey},
	} {
		cert, key, err := authority.issue(leaf.template)
		if err != nil {
			return nil, fmt.Errorf("issue the certificate of %s: %w", leaf.template.Subject.CommonName, err)
		}
		files[leaf.cert], files[leaf.keyFile] = cert, key
	}

	// RSA, because Entra accepts RS256 alone for federated credentials.
	key, err := rsa.GenerateKey(rand.Reader, rsaBits)
	if err != nil {
		return nil, fmt.Errorf("generate the service account key: %w", err)
	}
	files[ServiceAccountKey] = encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
	return files, nil
}

type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate the CA key: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: authorityName},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(validity),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the CA certificate: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read back the CA certificate: %w", err)
	}
	return &authority{certificate, key}, nil
}

func (a *authority) template(now time.Time, subject pkix.Name, usage x509.ExtKeyUsage) *x509.Certificate {
	return &x509.Certificate{
		Subject:               subject,
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(validity),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{usage},
	}
}

func (a *authority) issue(template *x509.Certificate) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generate the key: %w", err)
	}
	if template.SerialNumber, err = serialNumber(); err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, private.Public(), a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("sign: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the key: %w", err)
	}
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", pkcs8), nil
}

func serialNumber() (*big.Int, error) {
	const serialBits = 127
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits))
	if err != nil {
		return nil, fmt.Errorf("draw a serial number: %w", err)
	}
	return serial, nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
