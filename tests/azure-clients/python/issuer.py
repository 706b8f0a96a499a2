"""A token issuer over https, like a cluster's API server: discovery document, keys, and tokens to present."""

import base64
import datetime
import http.server
import ipaddress
import json
import ssl
import threading
import time

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUDIENCE = "api://AzureADTokenExchange"
SUBJECT = "system:serviceaccount:shop:orders"


class Issuer:
    """Serves several issuers, one below each path: `/good` is valid, each other one is invalid in its own way."""

    def __init__(self, folder):
        self.keys = {"one": _rsa_key(), "two": _rsa_key()}
        self.unpublished = _rsa_key()
        self.published = ["one"]
        self.requests = []
        self.ca_file = folder / "issuer-ca.crt"
        server_file = folder / "issuer.pem"
        _write_certificates(self.ca_file, server_file)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server_file)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.base = f"https://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()

    def url(self, name="good"):
        return f"{self.base}/{name}"

    def token(self, key="one", algorithm="RS256", key_id=None, **claims):
        """A service account token; claims given as None are omitted."""
        now = int(time.time())
        usual = {"iss": self.url(), "sub": SUBJECT, "aud": [AUDIENCE], "iat": now, "nbf": now, "exp": now + 3600}
        claims = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        signer = self.keys.get(key, self.unpublished)
        return jwt.encode(claims, signer, algorithm=algorithm, headers={"kid": key_id or key})

    def public_key_pem(self, key="one"):
        return self.keys[key].public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def answer(self, path):
        """Status, headers and body for a path."""
        name, _, rest = path.strip("/").partition("/")
        issuer = self.url(name)
        if rest == ".well-known/openid-configuration":
            document = {"issuer": issuer, "jwks_uri": f"{issuer}/keys", "response_types_supported": ["id_token"]}
            if name == "redirecting":
                return 302, {"Location": f"{self.url()}/.well-known/openid-configuration"}, b""
            if name == "somebody-else":
                document["issuer"] = self.url()
            if name == "plain-http-keys":
                document["jwks_uri"] = document["jwks_uri"].replace("https://", "http://")
            if name == "not-json":
                return 200, {}, b"<html>"
            if name == "missing":
                return 404, {}, b""
            return 200, {}, json.dumps(document).encode()
        if rest == "keys":
            if name == "bad-keys":
                return 200, {}, b'{"keys": "none"}'
            keys = [_public_jwk(key_id, self.keys[key_id]) for key_id in self.published]
            # Keys that Entra must ignore: one of another type, and one without an ID.
            keys += [{"kty": "EC", "kid": "curve", "crv": "P-256", "x": "AA", "y": "AA"}, {"kty": "RSA"}]
            return 200, {}, json.dumps({"keys": keys}).encode()
        return 404, {}, b""

    def _handler(self):
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                issuer.requests.append(self.path)
                status, headers, body = issuer.answer(self.path)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        return Handler


def _rsa_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _public_jwk(key_id, key):
    numbers = key.public_key().public_numbers()

    def encode(number):
        data = number.to_bytes((number.bit_length() + 7) // 8, "big")
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    return {
        "kty": "RSA",
        "use": "sig",
        "alg": "RS256",
        "kid": key_id,
        "n": encode(numbers.n),
        "e": encode(numbers.e),
    }


def _write_certificates(ca_file, server_file):
    now = datetime.datetime.now(datetime.timezone.utc)

    def builder(subject, issuer, key):
        return (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=7))
        )

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = (
        builder("Issuer CA", "Issuer CA", ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    leaf = (
        builder("issuer", "Issuer CA", key)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    ca_file.write_bytes(ca.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    server_file.write_bytes(private + leaf.public_bytes(pem))


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
