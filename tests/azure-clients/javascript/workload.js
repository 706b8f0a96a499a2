// A workload: it is configured by its environment, and prints its result as one line of JSON.

import { ManagedServiceIdentityClient } from "@azure/arm-msi";
import { WorkloadIdentityCredential } from "@azure/identity";

const SCOPE = "https://management.azure.com/.default";
const { ARM_ENDPOINT, SUBSCRIPTION_ID, RESOURCE_GROUP } = process.env;

const actions = {
  async token(credential) {
    const { token, expiresOnTimestamp } = await credential.getToken(SCOPE);
    return { claims: JSON.parse(Buffer.from(token.split(".")[1], "base64url")), expiresOnTimestamp };
  },

  async arm(credential) {
    const client = new ManagedServiceIdentityClient(credential, SUBSCRIPTION_ID, {
      endpoint: ARM_ENDPOINT,
      credentialScopes: [SCOPE],
      retryOptions: { maxRetries: 0 },
    });
    const identities = client.userAssignedIdentities;
    const credentials = client.federatedIdentityCredentials;
    const made = await identities.createOrUpdate(RESOURCE_GROUP, "billing", { location: "eastus", tags: { a: "1" } });
    const patched = await identities.update(RESOURCE_GROUP, "billing", { tags: { b: "2" } });
    const audiences = ["api://AzureADTokenExchange"];
    for (const subject of ["one", "two", "three"]) {
      const trust = { issuer: "https://issuer.example", subject, audiences };
      await credentials.createOrUpdate(RESOURCE_GROUP, "billing", `fic-${subject}`, trust);
    }
    const pages = [];
    for await (const page of credentials.list(RESOURCE_GROUP, "billing", { top: 2 }).byPage()) {
      pages.push(page.map((credential) => credential.name));
    }
    const read = await credentials.get(RESOURCE_GROUP, "billing", "fic-two");
    const twin = { issuer: "https://issuer.example", subject: "two", audiences };
    const duplicate = await refusal(credentials.createOrUpdate(RESOURCE_GROUP, "billing", "twin", twin));
    await credentials.delete(RESOURCE_GROUP, "billing", "fic-two");
    const gone = await refusal(credentials.get(RESOURCE_GROUP, "billing", "fic-two"));
    await identities.delete(RESOURCE_GROUP, "billing");
    const left = [];
    for await (const identity of identities.listByResourceGroup(RESOURCE_GROUP)) left.push(identity.name);
    for await (const identity of identities.listBySubscription()) left.push(identity.name);
    return { made, patched, pages, read, duplicate, gone, left };
  },
};

async function refusal(request) {
  try {
    await request;
  } catch (error) {
    return { status: error.statusCode, code: error.code, message: error.message };
  }
  return undefined;
}

// The authority is not public, so its instances must not be discovered.
const credential = new WorkloadIdentityCredential({ disableInstanceDiscovery: true });
const result = await actions[process.argv[2]](credential).catch((error) => ({ error: String(error.message) }));
console.log(JSON.stringify(result));
