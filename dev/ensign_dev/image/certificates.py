"""The authorities that the image trusts: those of the package ca-certificates, and no others.

Never /etc/ssl/certs: it also has what the administrator of the building machine added, such as the authority of a proxy
that reads everything, and every cluster that runs the image would trust it.
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
    """Certificates in one file, and the package that they are of."""

    pem: bytes
    package: debian.Package

    def about(self) -> str:
        """What the image's label says of it."""
        count, digest = self.pem.count(BEGIN), hashlib.sha256(self.pem).hexdigest()
        return f"{self.package.distribution} {PACKAGE} {self.package.version}, {count} certificates, sha256:{digest}"


def read(system: Path = debian.SYSTEM) -> Bundle:
    """The bundle of the package that is installed here."""
    package = debian.installed(PACKAGE, system)
    return Bundle(joined(debian.unchanged_files(PACKAGE, FOLDER, system)), package)


def joined(certificates: Iterable[bytes]) -> bytes:
    """One file of them all, with nothing in it but certificates."""
    found = [certificate.strip() for certificate in certificates]
    if not found:
        raise Failure(f"the package {PACKAGE} has no certificates in /{FOLDER}: nothing could be trusted")
    for certificate in found:
        if not (certificate.startswith(BEGIN) and certificate.endswith(END) and certificate.count(b"-----BEGIN") == 1):
            raise Failure(f"a file of /{FOLDER} is not one certificate in PEM: {certificate[:60]!r}")
    return b"".join(certificate + b"\n" for certificate in found)
