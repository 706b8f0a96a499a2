"""RS256 with Python's integers, for tokens of a test's issuer. Not for anything that has to be secret."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import secrets
from typing import Any, Dict, Mapping

EXPONENT = 65537
# The DER prefix of a SHA-256 digest in PKCS #1 v1.5 (RFC 8017, section 9.2, note 1).
SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")
ROUNDS = 24
SMALL_PRIMES_PRODUCT = math.prod(n for n in range(3, 2000, 2) if all(n % d for d in range(3, math.isqrt(n) + 1, 2)))


class Key:
    """An RSA key with a key ID."""

    def __init__(self, key_id: str, p: int, q: int) -> None:
        self.key_id = key_id
        self._modulus = p * q
        self._private = pow(EXPONENT, -1, math.lcm(p - 1, q - 1))

    @classmethod
    def generate(cls, key_id: str, bits: int = 2048) -> "Key":
        """Generates a key; takes about a second for 2048 bits."""
        p = _prime(bits // 2)
        q = _prime(bits // 2)
        while q == p:
            q = _prime(bits // 2)
        return cls(key_id, p, q)

    def jwk(self) -> Dict[str, str]:
        """The public key as a JSON Web Key."""
        modulus, exponent = (_encode(_bytes(number)) for number in (self._modulus, EXPONENT))
        return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.key_id, "n": modulus, "e": exponent}

    def token(self, claims: Mapping[str, Any], header: Mapping[str, Any]) -> str:
        """A JSON Web Token with these claims; `header` is added to the usual one."""
        full = {"alg": "RS256", "typ": "JWT", "kid": self.key_id, **header}
        signed = ".".join(_encode(json.dumps(part).encode()) for part in (full, claims))
        return f"{signed}.{_encode(self.sign(signed.encode()))}"

    def sign(self, data: bytes) -> bytes:
        """The RS256 signature of some data."""
        length = len(_bytes(self._modulus))
        digest = SHA256_PREFIX + hashlib.sha256(data).digest()
        padding = b"\xff" * (length - len(digest) - 3)
        padded = b"\x00\x01" + padding + b"\x00" + digest
        return pow(int.from_bytes(padded, "big"), self._private, self._modulus).to_bytes(length, "big")


def claims_of(token: str) -> Dict[str, Any]:
    """The claims of a token, unverified; empty if it is not a JSON Web Token."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _prime(bits: int) -> int:
    while True:
        # The two highest bits are set, so that the product of two primes has twice the bits.
        candidate = secrets.randbits(bits) | (0b11 << (bits - 2)) | 1
        if math.gcd(candidate, SMALL_PRIMES_PRODUCT) == 1 and candidate % EXPONENT != 1 and _is_prime(candidate):
            return candidate


def _is_prime(number: int) -> bool:
    """Miller-Rabin; for large odd numbers."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(_passes(number, odd, twos) for _ in range(ROUNDS))


def _passes(number: int, odd: int, twos: int) -> bool:
    power = pow(secrets.randbelow(number - 3) + 2, odd, number)
    if power in (1, number - 1):
        return True
    for _ in range(twos - 1):
        power = pow(power, 2, number)
        if power == number - 1:
            return True
    return False
