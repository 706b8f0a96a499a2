"""The CAs that the image trusts: exactly those of the package ca-certificates.

/etc/ssl/certs is never used: it also contains CAs that were added on the build machine, such as that of a TLS-inspecting
proxy, and every cluster that runs the image would trust them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Iterable, NamedTuple

from ..failure import Failure
from . import debian

PACKAGE = "ca-certificates"
FOLDER = "usr/share/ca-certificates/"
BEGIN = b"-----BEGIN CERTIFICATE-----"
END = b"-----END CERTIFICATE-----"


class Bundle(NamedTuple):
    """Certificates in one file, and their package."""

    pem: bytes
    package: debian.Package

    def about(self) -> str:
        """The description in the image's label."""
        count, digest = self.pem.count(BEGIN), hashlib.sha256(self.pem).hexdigest()
        return f"{self.package.distribution} {PACKAGE} {self.package.version}, {count} certificates, sha256:{digest}"


def read(system: Path = debian.SYSTEM) -> Bundle:
    """Returns the certificates of the installed package."""
    package = debian.installed(PACKAGE, system)
    return Bundle(joined(debian.unchanged_files(PACKAGE, FOLDER, system)), package)


def joined(certificates: Iterable[bytes]) -> bytes:
    """Concatenates certificates into one file that contains nothing else."""
    found = [certificate.strip() for certificate in certificates]
    if not found:
        raise Failure(f"the package {PACKAGE} has no certificates in /{FOLDER}, so the image would trust no server")
    for certificate in found:
        if not (certificate.startswith(BEGIN) and certificate.endswith(END) and certificate.count(b"-----BEGIN") == 1):
            raise Failure(f"a file in /{FOLDER} is not a single PEM certificate: {certificate[:60]!r}")
    return b"".join(certificate + b"\n" for certificate in found)
