"""A program without a secret: it requests an Azure token from Entra with nothing but what its pod was given.

Nothing here depends on Ensign. WorkloadIdentityCredential reads AZURE_CLIENT_ID, AZURE_TENANT_ID,
AZURE_FEDERATED_TOKEN_FILE and AZURE_AUTHORITY_HOST, sends the pod's own service account token to Entra and
gets an Azure token back. A real application would hand the credential to a client of Azure Storage or Key
Vault; this one prints the claims of the token, never the token.
"""

import argparse
import base64
import json
import sys

from azure.core.exceptions import AzureError
from azure.identity import WorkloadIdentityCredential

SCOPE = "https://management.azure.com/.default"
SDK = "azure-identity for Python"


def claims(token):
    """The claims of a token, unverified: only the service that the token is for can and has to verify them."""
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def main():
    parser = argparse.ArgumentParser(description="Get an Azure token without a secret and print its claims")
    parser.add_argument("-o", dest="format", choices=["text", "json"], default="text", help="output format")
    as_json = parser.parse_args().format == "json"
    try:
        with WorkloadIdentityCredential() as credential:
            found = claims(credential.get_token(SCOPE).token)
    except (AzureError, ValueError, OSError) as error:
        if as_json:
            print(json.dumps({"ok": False, "sdk": SDK, "error": str(error)}))
        else:
            print(f"no token: {error}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps({"ok": True, "sdk": SDK, "claims": found}))
    else:
        print("Entra exchanged my service account token for an Azure token. Its claims:")
        for name, value in found.items():
            print(f"  {name}: {json.dumps(value)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
