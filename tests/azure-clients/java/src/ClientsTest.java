import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.azure.core.credential.TokenCredential;
import com.azure.core.credential.TokenRequestContext;
import com.azure.core.exception.HttpResponseException;
import com.azure.core.management.AzureEnvironment;
import com.azure.core.management.AzureEnvironment.Endpoint;
import com.azure.core.management.exception.ManagementException;
import com.azure.core.management.profile.AzureProfile;
import com.azure.core.util.Context;
import com.azure.identity.WorkloadIdentityCredentialBuilder;
import com.azure.resourcemanager.authorization.AuthorizationManager;
import com.azure.resourcemanager.authorization.fluent.models.PermissionInner;
import com.azure.resourcemanager.authorization.fluent.models.RoleDefinitionInner;
import com.azure.resourcemanager.authorization.models.PrincipalType;
import com.azure.resourcemanager.authorization.models.RoleAssignmentCreateParameters;
import com.azure.resourcemanager.msi.MsiManager;
import com.azure.resourcemanager.msi.fluent.FederatedIdentityCredentialsClient;
import com.azure.resourcemanager.msi.fluent.UserAssignedIdentitiesClient;
import com.azure.resourcemanager.msi.fluent.models.FederatedIdentityCredentialInner;
import com.azure.resourcemanager.msi.fluent.models.IdentityInner;
import com.azure.resourcemanager.msi.models.IdentityUpdate;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.api.io.TempDir;

/** azure-identity, azure-resourcemanager-msi and azure-resourcemanager-authorization, unpatched, against the emulator. */
@Timeout(120)
class ClientsTest {
    private static final String AUDIENCE = "https://management.azure.com";
    private static final String SHOP = "system:serviceaccount:shop:orders";
    private static final String CLIENT = "11111111-0000-4000-8000-000000000001";
    private static final String PRINCIPAL = "11111111-0000-4000-8000-000000000002";
    private static final String READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7";
    private static final String ROLE = "c0500000-0000-4000-8000-000000000001";

    @TempDir
    static Path folder;
    private static Issuer issuer;
    private static Emulator azure;

    @BeforeAll
    static void start() throws Exception {
        issuer = new Issuer(folder);
        azure = new Emulator(folder, issuer.certificate);
    }

    @AfterAll
    static void stop() throws Exception {
        issuer.stop();
        azure.stop();
    }

    @BeforeEach
    void seed() throws Exception {
        seed(Map.of());
        azure.put("faults", List.of());
    }

    /** The identity `orders` trusts one subject and may do everything in ARM. */
    private static void seed(Map<String, Object> more) throws Exception {
        Map<String, Object> state = new HashMap<>(Map.of("writeLatencyMs", 0, "identities", List.of(orders("all"))));
        state.putAll(more);
        azure.put("state", state);
    }

    private static Map<String, Object> orders(String rights) {
        return Map.of("name", "orders", "clientId", CLIENT, "principalId", PRINCIPAL, "armRights", rights,
                "federatedIdentityCredentials",
                List.of(Map.of("name", "trust", "issuer", issuer.url, "subject", SHOP)));
    }

    /** The credential of a pod, whose token file ends with a newline. */
    private static TokenCredential workload(String subject) throws Exception {
        Path file = Files.writeString(Files.createTempFile(folder, "token", ""), issuer.token(subject) + "\n");
        // The authority is not public, so its instances must not be discovered: for that, the library asks
        // login.microsoftonline.com, on the authority's port.
        return new WorkloadIdentityCredentialBuilder().clientId(CLIENT).tenantId(azure.tenant)
                .authorityHost(azure.authority).tokenFilePath(file.toString()).maxRetry(0).disableInstanceDiscovery().build();
    }

    private static AzureProfile profile() {
        Map<String, String> endpoints = new HashMap<>(AzureEnvironment.AZURE.getEndpoints());
        endpoints.put(Endpoint.RESOURCE_MANAGER.identifier(), azure.arm + "/");
        endpoints.put(Endpoint.ACTIVE_DIRECTORY.identifier(), azure.authority);
        endpoints.put(Endpoint.MANAGEMENT.identifier(), AUDIENCE);
        return new AzureProfile(azure.tenant, azure.subscription, new AzureEnvironment(endpoints));
    }

    private static MsiManager identities() throws Exception {
        return MsiManager.authenticate(workload(SHOP), profile());
    }

    private static FederatedIdentityCredentialInner trust(String subject, String... audiences) {
        return new FederatedIdentityCredentialInner().withIssuer("https://issuer.example").withSubject(subject)
                .withAudiences(List.of(audiences));
    }

    private static FederatedIdentityCredentialInner trust(String subject) {
        return trust(subject, "api://AzureADTokenExchange");
    }

    private static String group() {
        return "/subscriptions/" + azure.subscription + "/resourceGroups/" + azure.group;
    }

    /** Checks ARM's status and code. */
    private static ManagementException fails(int status, String code, Executable request) {
        ManagementException refused = assertThrows(ManagementException.class, request);
        assertEquals(status, refused.getResponse().getStatusCode(), refused.getMessage());
        assertEquals(code, refused.getValue().getCode(), refused.getMessage());
        return refused;
    }

    @Test
    void aWorkloadExchangesItsToken() throws Exception {
        TokenRequestContext request = new TokenRequestContext().addScopes(AUDIENCE + "/.default");
        String token = workload(SHOP).getTokenSync(request).getToken();
        JsonNode claims = new ObjectMapper().readTree(Base64.getUrlDecoder().decode(token.split("\\.")[1]));
        assertEquals(PRINCIPAL, claims.get("oid").asText());
        assertEquals(CLIENT, claims.get("azp").asText());
        assertEquals(AUDIENCE, claims.get("aud").asText());
        assertEquals(azure.authority + azure.tenant + "/v2.0", claims.get("iss").asText());
    }

    @Test
    void anotherServiceAccountIsRejected() throws Exception {
        TokenCredential other = workload("system:serviceaccount:shop:somebody-else");
        TokenRequestContext request = new TokenRequestContext().addScopes(AUDIENCE + "/.default");
        // Without a type of its own: the message is that of the cause.
        Exception refused = assertThrows(RuntimeException.class, () -> other.getTokenSync(request));
        assertTrue(refused.getMessage().contains("AADSTS700213: No matching federated identity record"), refused.getMessage());
    }

    @Test
    void identitiesAreManaged() throws Exception {
        UserAssignedIdentitiesClient client = identities().serviceClient().getUserAssignedIdentities();
        IdentityInner billing = new IdentityInner();
        billing.withLocation("eastus").withTags(Map.of("a", "1"));
        IdentityInner made = client.createOrUpdate(azure.group, "billing", billing);
        assertEquals(azure.tenant, made.tenantId().toString());
        IdentityUpdate patch = new IdentityUpdate();
        patch.withTags(Map.of("b", "2"));
        assertEquals(Map.of("b", "2"), client.update(azure.group, "billing", patch).tags());
        assertEquals(List.of("billing", "orders"),
                client.listByResourceGroup(azure.group).stream().map(IdentityInner::name).toList());
        assertEquals(200, client.deleteWithResponse(azure.group, "billing", Context.NONE).getStatusCode());
        assertEquals(204, client.deleteWithResponse(azure.group, "billing", Context.NONE).getStatusCode());
        fails(404, "ResourceNotFound", () -> client.getByResourceGroup(azure.group, "billing"));
        fails(404, "ResourceGroupNotFound", () -> client.getByResourceGroup("absent", "billing"));
    }

    @Test
    void theFluentClientFindsTheResourceGroup() throws Exception {
        var made = identities().identities().define("fluent").withRegion("eastus").withExistingResourceGroup(azure.group)
                .withTag("a", "1").create();
        assertEquals(made.principalId(), identities().identities().getById(made.id()).principalId());
        identities().identities().deleteById(made.id());
    }

    @Test
    void credentialsAreManaged() throws Exception {
        FederatedIdentityCredentialsClient client = identities().serviceClient().getFederatedIdentityCredentials();
        for (String subject : List.of("one", "two", "three")) {
            client.createOrUpdate(azure.group, "orders", "fic-" + subject, trust(subject));
        }
        List<Integer> pages = new ArrayList<>();
        client.list(azure.group, "orders", 3, null, Context.NONE).iterableByPage().forEach(page -> {
            pages.add(page.getValue().size());
        });
        assertEquals(List.of(3, 1), pages);
        assertEquals("two", client.get(azure.group, "orders", "fic-two").subject());
        ManagementException twin =
                fails(409, "Conflict", () -> client.createOrUpdate(azure.group, "orders", "twin", trust("two")));
        assertTrue(twin.getMessage().contains("Issuer and subject combination already exists"), twin.getMessage());
        fails(404, "NotFound", () -> client.createOrUpdate(azure.group, "absent", "one", trust("one")));
        fails(400, "BadRequest",
                () -> client.createOrUpdate(azure.group, "orders", "two-audiences", trust("more", "api://a", "api://b")));
        client.delete(azure.group, "orders", "fic-two");
        fails(404, "ResourceNotFound", () -> client.get(azure.group, "orders", "fic-two"));
    }

    @Test
    void aLockForbidsADeletion() throws Exception {
        seed(Map.of("locks", List.of(Map.of("scope", group()))));
        FederatedIdentityCredentialsClient client = identities().serviceClient().getFederatedIdentityCredentials();
        fails(409, "ScopeLocked", () -> client.delete(azure.group, "orders", "trust"));
    }

    @Test
    void aThrottledRequestIsSentAgainWhenAzureSays() throws Exception {
        UserAssignedIdentitiesClient client = identities().serviceClient().getUserAssignedIdentities();
        client.getByResourceGroup(azure.group, "orders");
        azure.put("faults", List.of(Map.of("match", Map.of("kind", "arm-read"),
                "action", Map.of("status", 429, "code", "SubscriptionRequestsThrottled", "retryAfter", "1"))));
        long began = System.nanoTime();
        client.getByResourceGroup(azure.group, "orders");
        Duration waited = Duration.ofNanos(System.nanoTime() - began);
        assertTrue(waited.compareTo(Duration.ofSeconds(1)) >= 0, "sent again after " + waited);
    }

    @Test
    void rolesAreDefinedAndAssigned() throws Exception {
        var client = AuthorizationManager.authenticate(workload(SHOP), profile()).roleServiceClient();
        var definitions = client.getRoleDefinitions();
        var assignments = client.getRoleAssignments();
        RoleDefinitionInner role = new RoleDefinitionInner().withRoleName("Custom").withRoleType("CustomRole")
                .withPermissions(List.of(new PermissionInner().withActions(List.of("Microsoft.ManagedIdentity/*/read"))))
                .withAssignableScopes(List.of(group()));
        assertEquals(ROLE, definitions.createOrUpdate(group(), ROLE, role).name());
        assertEquals(ROLE, definitions.createOrUpdate(group(), ROLE, role).name());
        fails(409, "RoleDefinitionWithSameNameExists",
                () -> definitions.createOrUpdate(group(), "c0500000-0000-4000-8000-000000000002", role));
        assertEquals(List.of(READER), definitions.list(group(), "roleName eq 'reader'", Context.NONE).stream()
                .map(RoleDefinitionInner::name).toList());
        String id = "/subscriptions/" + azure.subscription + "/providers/Microsoft.Authorization/roleDefinitions/" + ROLE;
        RoleAssignmentCreateParameters assigned = new RoleAssignmentCreateParameters().withRoleDefinitionId(id)
                .withPrincipalId(PRINCIPAL).withPrincipalType(PrincipalType.SERVICE_PRINCIPAL);
        String first = "a5500000-0000-4000-8000-000000000001";
        assertEquals(group(), assignments.create(group(), first, assigned).scope());
        fails(409, "RoleAssignmentExists",
                () -> assignments.create(group(), "a5500000-0000-4000-8000-000000000002", assigned));
        fails(400, "RoleDefinitionHasAssignments", () -> definitions.delete(group(), ROLE));
        assertEquals(1, assignments.listForScope(group()).stream().count());
        assignments.delete(group(), first);
        definitions.delete(group(), ROLE);
        fails(404, "RoleDefinitionDoesNotExist", () -> definitions.get(group(), ROLE));
    }

    @Test
    void withoutRightsAzureSaysWhatIsMissing() throws Exception {
        seed(Map.of("identities", List.of(orders("none"))));
        UserAssignedIdentitiesClient client = identities().serviceClient().getUserAssignedIdentities();
        HttpResponseException refused =
                fails(403, "AuthorizationFailed", () -> client.getByResourceGroup(azure.group, "orders"));
        assertTrue(refused.getMessage().contains("does not have authorization to perform action"), refused.getMessage());
    }
}
