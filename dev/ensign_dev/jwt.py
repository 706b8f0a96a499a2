"""Decodes the claims of a token for display. Nothing is verified here; that is up to the token's audience."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Dict

from .failure import Failure


def claims(token: str) -> Dict[str, Any]:
    """Returns the claims of a JWT; error messages never contain the token."""
    parts = token.strip().split(".")
    try:
        if len(parts) != 3:
            raise ValueError("not three parts")
        decoded = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error):
        raise Failure("can't decode a token: it is not a JWT") from None
    if not isinstance(decoded, dict):
        raise Failure("can't decode a token: its claims are not an object")
    return decoded
