"""What a client is told when Azure refuses."""

import contextlib
import json

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError


@contextlib.contextmanager
def refused(status, code, message=""):
    """ARM refuses with this status and code, in these words."""
    with pytest.raises(HttpResponseError) as caught:
        yield
    error = caught.value
    # The client drops the body of a 404 or 409 of some operations: read what came over the wire.
    envelope = json.loads(error.response.text())["error"]
    assert (error.status_code, envelope["code"]) == (status, code), envelope
    assert message in envelope["message"], envelope["message"]


@contextlib.contextmanager
def not_authenticated(code, message=""):
    """Entra refuses with this AADSTS code, in these words."""
    with pytest.raises(ClientAuthenticationError) as caught:
        yield
    text = str(caught.value)
    assert f"AADSTS{code}: " in text, text
    assert message in text, text
