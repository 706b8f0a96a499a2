"""Reading the claims of a token for people. Nothing is verified here; those whom a token is for do that."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Dict

from .failure import Failure


def claims(token: str) -> Dict[str, Any]:
    """The claims of a JWT; the error never repeats the token."""
    parts = token.strip().split(".")
    try:
        if len(parts) != 3:
            raise ValueError("not three parts")
        decoded = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error):
        raise Failure("a token could not be read: it is not a JWT") from None
    if not isinstance(decoded, dict):
        raise Failure("a token could not be read: its claims are not an object")
    return decoded
