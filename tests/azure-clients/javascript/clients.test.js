// @azure/identity and @azure/arm-msi, unpatched, against the emulator.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { startIssuer } from "./issuer.js";

const here = dirname(fileURLToPath(import.meta.url));
const binary = process.env.ENSIGN_AZURE_EMULATOR_BIN || join(here, "../../../target/debug/ensign-azure-emulator");
const orders = {
  clientId: "11111111-0000-4000-8000-000000000001",
  principalId: "11111111-0000-4000-8000-000000000002",
};

let folder, issuer, emulator, info;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "ensign-javascript-"));
  issuer = await startIssuer();
  const [ca, seed] = [join(folder, "issuer.crt"), join(folder, "seed.json")];
  await writeFile(ca, issuer.certificate);
  const credential = { name: "trust", issuer: issuer.url, subject: "system:serviceaccount:shop:orders" };
  const identity = { name: "orders", ...orders, armRights: "all", federatedIdentityCredentials: [credential] };
  await writeFile(seed, JSON.stringify({ identities: [identity] }));
  emulator = spawn(binary, ["--stop-on-stdin-eof", "--issuer-ca-file", ca, "--seed", seed], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const [line] = await once(createInterface({ input: emulator.stdout }), "line");
  info = JSON.parse(line);
});

after(async () => {
  emulator.stdin.end();
  const [code] = await once(emulator, "exit");
  issuer.stop();
  await rm(folder, { recursive: true });
  assert.equal(code, 0);
});

/** Runs the workload as a pod would: its environment, and its token in a file with a newline at the end. */
async function workload(action, subject = "system:serviceaccount:shop:orders") {
  const file = join(folder, "token");
  await writeFile(file, `${issuer.token(subject)}\n`);
  const environment = {
    PATH: process.env.PATH,
    NODE_EXTRA_CA_CERTS: info.ca_file,
    AZURE_CLIENT_ID: orders.clientId,
    AZURE_TENANT_ID: info.tenant_id,
    AZURE_AUTHORITY_HOST: info.authority_host,
    AZURE_FEDERATED_TOKEN_FILE: file,
    ARM_ENDPOINT: info.arm_endpoint,
    SUBSCRIPTION_ID: info.subscription_id,
    RESOURCE_GROUP: info.resource_group,
  };
  const options = { env: environment, timeout: 60_000 };
  const { stdout } = await promisify(execFile)(process.execPath, [join(here, "workload.js"), action], options);
  return JSON.parse(stdout);
}

test("a workload exchanges its token", async () => {
  const { claims, error } = await workload("token");
  assert.equal(error, undefined);
  assert.equal(claims.oid, orders.principalId);
  assert.equal(claims.azp, orders.clientId);
  assert.equal(claims.aud, "https://management.azure.com");
  assert.equal(claims.iss, `${info.authority_host}${info.tenant_id}/v2.0`);
});

test("another service account is rejected", async () => {
  const { error } = await workload("token", "system:serviceaccount:shop:somebody-else");
  assert.match(error, /AADSTS700213: No matching federated identity record found for presented assertion subject/);
});

test("identities and credentials are managed", async () => {
  const { error, made, patched, pages, read, duplicate, gone, left } = await workload("arm");
  assert.equal(error, undefined);
  assert.equal(made.tenantId, info.tenant_id);
  assert.deepEqual(patched.tags, { b: "2" });
  assert.deepEqual(pages, [["fic-one", "fic-three"], ["fic-two"]]);
  assert.deepEqual(read.audiences, ["api://AzureADTokenExchange"]);
  assert.deepEqual(duplicate, {
    status: 409,
    code: "Conflict",
    message: "Issuer and subject combination already exists for this Managed Identity.",
  });
  assert.deepEqual([gone.status, gone.code], [404, "ResourceNotFound"]);
  assert.deepEqual(left, ["orders", "orders"]);
});
