// A token issuer over https, like a cluster's API server, with Node's standard library.

import { createPublicKey, generateKeyPairSync, sign } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:https";

const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const publicKey = createPublicKey(privateKey);

/** Starts an issuer: its URL, the certificate to trust, and a maker of tokens. */
export async function startIssuer() {
  const certificate = selfSigned();
  const server = createServer({ key: privateKey.export({ type: "pkcs8", format: "pem" }), cert: certificate });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `https://127.0.0.1:${server.address().port}`;
  const documents = {
    "/.well-known/openid-configuration": { issuer: url, jwks_uri: `${url}/keys` },
    "/keys": { keys: [{ ...publicKey.export({ format: "jwk" }), kid: "one", alg: "RS256", use: "sig" }] },
  };
  server.on("request", (request, response) => {
    response.statusCode = request.url in documents ? 200 : 404;
    response.end(JSON.stringify(documents[request.url] ?? {}));
  });
  return { url, certificate, token: (subject) => token(url, subject), stop: () => server.close() };
}

function token(issuer, subject) {
  const now = Math.floor(Date.now() / 1000);
  const claims = { iss: issuer, sub: subject, aud: ["api://AzureADTokenExchange"], iat: now, nbf: now, exp: now + 3600 };
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${encode({ alg: "RS256", typ: "JWT", kid: "one" })}.${encode(claims)}`;
  return `${signed}.${sign("sha256", Buffer.from(signed), privateKey).toString("base64url")}`;
}

// Node can't create certificates: minimal DER for one that is valid now, for 127.0.0.1.
function selfSigned() {
  const der = (tag, ...parts) => {
    const body = Buffer.concat(parts.map((part) => Buffer.from(part)));
    const length = [];
    for (let rest = body.length; rest > 0; rest >>= 8) length.unshift(rest & 0xff);
    const head = body.length < 128 ? [body.length] : [0x80 | length.length, ...length];
    return Buffer.concat([Buffer.from([tag, ...head]), body]);
  };
  const [sequence, set, oid, octets, bits, utf8, time] = [0x30, 0x31, 0x06, 0x04, 0x03, 0x0c, 0x17];
  const algorithm = der(sequence, der(oid, [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b]), der(0x05));
  const name = der(sequence, der(set, der(sequence, der(oid, [0x55, 0x04, 0x03]), der(utf8, "issuer"))));
  const at = (days) => {
    const date = new Date(Date.now() + days * 86_400_000).toISOString();
    return der(time, `${date.slice(2, 19).replace(/[-T:]/g, "")}Z`);
  };
  const address = der(sequence, der(0x87, [127, 0, 0, 1]));
  const alternativeName = der(sequence, der(oid, [0x55, 0x1d, 0x11]), der(octets, address));
  const unsigned = der(
    sequence,
    der(0xa0, der(0x02, [2])),
    der(0x02, [1]),
    algorithm,
    name,
    der(sequence, at(-1), at(1)),
    name,
    publicKey.export({ type: "spki", format: "der" }),
    der(0xa3, der(sequence, alternativeName)),
  );
  const certificate = der(sequence, unsigned, algorithm, der(bits, [0], sign("sha256", unsigned, privateKey)));
  return `-----BEGIN CERTIFICATE-----\n${certificate.toString("base64").replace(/.{64}/g, "$&\n")}\n-----END CERTIFICATE-----\n`;
}
