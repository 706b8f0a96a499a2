"""Checks of the errors that clients get from Azure."""

import contextlib
import json

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError


@contextlib.contextmanager
def fails_with(status, code, message=""):
    """Checks that ARM fails with this status, code and message."""
    with pytest.raises(HttpResponseError) as caught:
        yield
    error = caught.value
    # For some operations, the client drops the body of a 404 or 409: read the raw response.
    envelope = json.loads(error.response.text())["error"]
    assert (error.status_code, envelope["code"]) == (status, code), envelope
    assert message in envelope["message"], envelope["message"]


@contextlib.contextmanager
def not_authenticated(code, message=""):
    """Checks that Entra fails with this AADSTS code and message."""
    with pytest.raises(ClientAuthenticationError) as caught:
        yield
    text = str(caught.value)
    assert f"AADSTS{code}: " in text, text
    assert message in text, text
