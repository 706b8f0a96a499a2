import com.fasterxml.jackson.databind.ObjectMapper;
import com.sun.net.httpserver.HttpsConfigurator;
import com.sun.net.httpserver.HttpsServer;
import java.io.InputStream;
import java.math.BigInteger;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.Signature;
import java.security.interfaces.RSAPublicKey;
import java.time.Instant;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;

/** A token issuer over https, like a cluster's API server: discovery document, keys, and tokens to present. */
final class Issuer {
    private static final char[] PASSWORD = "changeit".toCharArray();
    private static final ObjectMapper JSON = new ObjectMapper();

    final String url;
    final Path certificate;
    private final PrivateKey key;
    private final HttpsServer server;

    Issuer(Path folder) throws Exception {
        Path file = folder.resolve("issuer.p12");
        // Java has no public API that creates certificates; its keytool does.
        Path keytool = Path.of(System.getProperty("java.home"), "bin", "keytool");
        Process made = new ProcessBuilder(keytool.toString(), "-genkeypair", "-alias", "issuer", "-keyalg", "RSA", "-keysize",
                "2048", "-dname", "CN=issuer", "-ext", "san=ip:127.0.0.1", "-validity", "2", "-storetype", "PKCS12",
                "-keystore", file.toString(), "-storepass", new String(PASSWORD)).inheritIO().start();
        if (!made.waitFor(60, TimeUnit.SECONDS) || made.exitValue() != 0) {
            throw new IllegalStateException("keytool failed");
        }
        KeyStore store = KeyStore.getInstance("PKCS12");
        try (InputStream in = Files.newInputStream(file)) {
            store.load(in, PASSWORD);
        }
        key = (PrivateKey) store.getKey("issuer", PASSWORD);
        String encoded = Base64.getMimeEncoder().encodeToString(store.getCertificate("issuer").getEncoded());
        certificate = Files.writeString(folder.resolve("issuer.crt"),
                "-----BEGIN CERTIFICATE-----\n" + encoded + "\n-----END CERTIFICATE-----\n");
        KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(store, PASSWORD);
        SSLContext tls = SSLContext.getInstance("TLS");
        tls.init(keys.getKeyManagers(), null, null);
        server = HttpsServer.create(new InetSocketAddress(InetAddress.getByName("127.0.0.1"), 0), 0);
        server.setHttpsConfigurator(new HttpsConfigurator(tls));
        url = "https://127.0.0.1:" + server.getAddress().getPort();
        RSAPublicKey published = (RSAPublicKey) store.getCertificate("issuer").getPublicKey();
        serve("/.well-known/openid-configuration", Map.of("issuer", url, "jwks_uri", url + "/keys"));
        serve("/keys", Map.of("keys", List.of(Map.of("kty", "RSA", "kid", "one", "alg", "RS256", "use", "sig",
                "n", unsigned(published.getModulus()), "e", unsigned(published.getPublicExponent())))));
        server.start();
    }

    private void serve(String path, Object document) throws Exception {
        byte[] body = JSON.writeValueAsBytes(document);
        server.createContext(path, exchange -> {
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
    }

    /** A service account token of the subject. */
    String token(String subject) throws Exception {
        long now = Instant.now().getEpochSecond();
        String claims = JSON.writeValueAsString(Map.of("iss", url, "sub", subject, "aud",
                List.of("api://AzureADTokenExchange"), "iat", now, "nbf", now, "exp", now + 3600));
        String signed = encode("{\"alg\":\"RS256\",\"typ\":\"JWT\",\"kid\":\"one\"}".getBytes(StandardCharsets.UTF_8))
                + "." + encode(claims.getBytes(StandardCharsets.UTF_8));
        Signature signature = Signature.getInstance("SHA256withRSA");
        signature.initSign(key);
        signature.update(signed.getBytes(StandardCharsets.US_ASCII));
        return signed + "." + encode(signature.sign());
    }

    private static String unsigned(BigInteger number) {
        byte[] bytes = number.toByteArray();
        return encode(bytes[0] == 0 ? Arrays.copyOfRange(bytes, 1, bytes.length) : bytes);
    }

    private static String encode(byte[] data) {
        return Base64.getUrlEncoder().withoutPadding().encodeToString(data);
    }

    void stop() {
        server.stop(0);
    }
}
