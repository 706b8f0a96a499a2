package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func certificate(t *testing.T, content []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(content)
	if block == nil {
		t.Fatal("not PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestEveryNameOfTheServerIsTrusted(t *testing.T) {
	now := time.Now()
	files, err := Generate(now)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate(t, files[CACert]))
	serving := certificate(t, files[ServingCert])
	for _, name := range []string{"127.0.0.1", "::1", "localhost", "kubernetes.default.svc"} {
		if _, err := serving.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: now}); err != nil {
			t.Errorf("%s is not trusted: %v", name, err)
		}
	}
	if _, err := serving.Verify(x509.VerifyOptions{DNSName: "example.com", Roots: roots, CurrentTime: now}); err == nil {
		t.Error("a name that is not the server's is trusted")
	}
}

func TestClientCertificatesSayWhoTheyAreAndFitTheirKeys(t *testing.T) {
	now := time.Now()
	files, err := Generate(now)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate(t, files[CACert]))
	for _, c := range []struct{ cert, key, name, group string }{
		{AdminCert, AdminKey, "kubernetes-admin", "system:masters"},
		{ControllerManagerCert, ControllerManagerKey, "system:kube-controller-manager", ""},
	} {
		if _, err := tls.X509KeyPair(files[c.cert], files[c.key]); err != nil {
			t.Errorf("%s: %v", c.cert, err)
		}
		cert := certificate(t, files[c.cert])
		options := x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		if _, err := cert.Verify(options); err != nil {
			t.Errorf("%s: %v", c.cert, err)
		}
		var group string
		if len(cert.Subject.Organization) > 0 {
			group = cert.Subject.Organization[0]
		}
		if cert.Subject.CommonName != c.name || group != c.group {
			t.Errorf("%s is %q in group %q", c.cert, cert.Subject.CommonName, group)
		}
	}
}

func TestServiceAccountTokensAreSignedWithRSA(t *testing.T) {
	files, err := Generate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(files[ServiceAccountKey])
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if key.N.BitLen() != 2048 {
		t.Errorf("the key has %d bits", key.N.BitLen())
	}
}

func TestASecondStartKeepsEveryKey(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	if err := Ensure(dir, now); err != nil {
		t.Fatal(err)
	}
	before := read(t, dir)
	if err := Ensure(dir, now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	for name, content := range read(t, dir) {
		if !bytes.Equal(content, before[name]) {
			t.Errorf("%s changed", name)
		}
	}
}

func TestAStartThatWasCutShortIsDoneAgain(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ServingCert), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Ensure(dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := tls.LoadX509KeyPair(filepath.Join(dir, ServingCert), filepath.Join(dir, ServingKey)); err != nil {
		t.Error(err)
	}
}

func TestPrivateKeysAreReadableByTheirOwnerAlone(t *testing.T) {
	dir := t.TempDir()
	if err := Ensure(dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{ServingKey, ServiceAccountKey, AdminKey, ControllerManagerKey} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
}

func read(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[entry.Name()] = content
	}
	return files
}
