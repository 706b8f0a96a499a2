import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.util.concurrent.TimeUnit;

/** A running ensign-azure-emulator; it stops when its stdin is closed. */
final class Emulator {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final char[] PASSWORD = "changeit".toCharArray();

    final String arm;
    final String authority;
    final String tenant;
    final String subscription;
    final String group;
    private final Process process;
    private final HttpClient client;

    /** Starts it. From then on, this process trusts its CA, as with {@code -Djavax.net.ssl.trustStore}. */
    Emulator(Path folder, Path issuerCertificate) throws Exception {
        String binary = System.getenv("ENSIGN_AZURE_EMULATOR_BIN");
        if (binary == null) {
            binary = "../../../target/debug/ensign-azure-emulator";
        }
        process = new ProcessBuilder(binary, "--stop-on-stdin-eof", "--issuer-ca-file", issuerCertificate.toString())
                .redirectError(ProcessBuilder.Redirect.INHERIT).start();
        String line = new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8)).readLine();
        if (line == null) {
            throw new IllegalStateException(binary + " did not start");
        }
        JsonNode info = JSON.readTree(line);
        arm = info.get("arm_endpoint").asText();
        authority = info.get("authority_host").asText();
        tenant = info.get("tenant_id").asText();
        subscription = info.get("subscription_id").asText();
        group = info.get("resource_group").asText();
        trust(Path.of(info.get("ca_file").asText()), folder.resolve("trusted.p12"));
        client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(30)).build();
    }

    private static void trust(Path pem, Path file) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, PASSWORD);
        try (InputStream in = Files.newInputStream(pem)) {
            store.setCertificateEntry("emulator", CertificateFactory.getInstance("X.509").generateCertificate(in));
        }
        try (OutputStream out = Files.newOutputStream(file)) {
            store.store(out, PASSWORD);
        }
        System.setProperty("javax.net.ssl.trustStore", file.toString());
        System.setProperty("javax.net.ssl.trustStorePassword", new String(PASSWORD));
    }

    /** Replaces the state or the fault rules. */
    void put(String path, Object body) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(arm + "/_emulator/" + path)).timeout(Duration.ofSeconds(30))
                .header("Content-Type", "application/json")
                .PUT(HttpRequest.BodyPublishers.ofString(JSON.writeValueAsString(body))).build();
        HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() >= 300) {
            throw new IllegalStateException("PUT " + path + ": " + answer.statusCode() + " " + answer.body());
        }
    }

    void stop() throws Exception {
        process.getOutputStream().close();
        if (!process.waitFor(30, TimeUnit.SECONDS) || process.exitValue() != 0) {
            process.destroyForcibly();
            throw new IllegalStateException("the emulator did not stop as it should");
        }
    }
}
