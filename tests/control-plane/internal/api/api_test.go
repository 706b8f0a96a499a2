package api

import (
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"ensign.dev/ensign/tests/control-plane/internal/pki"
)

// client speaks to a server that answers every request through handler.
func client(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	files, err := pki.Generate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	c, err := New(server.URL, ca, files[pki.AdminCert], files[pki.AdminKey])
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAServerThatIsNotReadySaysWhy(t *testing.T) {
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			http.Error(w, "[-]etcd failed", http.StatusInternalServerError)
		}
	})
	if err := c.Get(t.Context(), "/livez"); err != nil {
		t.Errorf("an answer of 200 is an error: %v", err)
	}
	err := c.Get(t.Context(), "/readyz")
	for _, part := range []string{"/readyz", "500", "[-]etcd failed"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %q", err, part)
		}
	}
}

func TestTheIssuerIsPublishedToEverybodyOnce(t *testing.T) {
	for status, want := range map[int]bool{http.StatusCreated: true, http.StatusConflict: true, http.StatusForbidden: false} {
		c := client(t, func(w http.ResponseWriter, r *http.Request) {
			var binding struct {
				RoleRef  struct{ Name string }
				Subjects []struct{ Kind, Name string }
			}
			if err := json.NewDecoder(r.Body).Decode(&binding); err != nil {
				t.Error(err)
			}
			if r.Method != http.MethodPost || binding.RoleRef.Name != "system:service-account-issuer-discovery" ||
				len(binding.Subjects) != 1 || binding.Subjects[0].Name != "system:unauthenticated" {
				t.Errorf("%s %s: %+v", r.Method, r.URL.Path, binding)
			}
			w.WriteHeader(status)
		})
		if err := c.PublishIssuer(t.Context()); (err == nil) != want {
			t.Errorf("answer %d: %v", status, err)
		}
	}
}

func TestKeyMaterialThatDoesNotFitIsRefused(t *testing.T) {
	files, err := pki.Generate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New("https://127.0.0.1:1", files[pki.CACert], files[pki.AdminCert], files[pki.ControllerManagerKey]); err == nil {
		t.Error("a key of another certificate was accepted")
	}
	if _, err := New("https://127.0.0.1:1", []byte("nothing"), files[pki.AdminCert], files[pki.AdminKey]); err == nil {
		t.Error("a CA file without a certificate was accepted")
	}
}
