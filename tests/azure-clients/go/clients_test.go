// Package clients runs azidentity, armmsi and armauthorization, unpatched, against the emulator.
package clients

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/authorization/armauthorization/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/msi/armmsi"
)

const (
	audience = "https://management.azure.com"
	reader   = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
	guid     = "c0500000-0000-4000-8000-000000000001"
)

func configuration() cloud.Configuration {
	return cloud.Configuration{
		ActiveDirectoryAuthorityHost: azure.AuthorityHost,
		Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
			cloud.ResourceManager: {Audience: audience, Endpoint: azure.ARMEndpoint},
		},
	}
}

// workload is the credential of a pod, whose token file ends with a newline.
func workload(t *testing.T, subject string) *azidentity.WorkloadIdentityCredential {
	t.Helper()
	token, err := trusted.token(subject)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	credential, err := azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
		ClientOptions: policy.ClientOptions{Cloud: configuration()},
		ClientID:      clientID,
		TenantID:      azure.TenantID,
		TokenFilePath: file,
		// The authority is not public, so its instances must not be discovered.
		DisableInstanceDiscovery: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return credential
}

func armOptions(retries int32) *arm.ClientOptions {
	return &arm.ClientOptions{ClientOptions: policy.ClientOptions{
		Cloud: configuration(),
		// A negative number is none.
		Retry: policy.RetryOptions{MaxRetries: retries, RetryDelay: time.Millisecond},
	}}
}

func identityClients(t *testing.T, retries int32) (*armmsi.UserAssignedIdentitiesClient, *armmsi.FederatedIdentityCredentialsClient) {
	t.Helper()
	factory, err := armmsi.NewClientFactory(azure.SubscriptionID, workload(t, shop), armOptions(retries))
	if err != nil {
		t.Fatal(err)
	}
	return factory.NewUserAssignedIdentitiesClient(), factory.NewFederatedIdentityCredentialsClient()
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func trust(subject string) armmsi.FederatedIdentityCredential {
	return armmsi.FederatedIdentityCredential{Properties: &armmsi.FederatedIdentityCredentialProperties{
		Issuer:    to.Ptr("https://issuer.example"),
		Subject:   to.Ptr(subject),
		Audiences: []*string{to.Ptr("api://AzureADTokenExchange")},
	}}
}

func succeeds[T any](t *testing.T) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// fails checks ARM's status and code.
func fails(t *testing.T, err error, status int, code string) {
	t.Helper()
	var refused *azcore.ResponseError
	if !errors.As(err, &refused) {
		t.Fatalf("not refused with %d %s: %v", status, code, err)
	}
	if refused.StatusCode != status || refused.ErrorCode != code {
		t.Fatalf("%d %s instead of %d %s: %v", refused.StatusCode, refused.ErrorCode, status, code, err)
	}
}

func TestAWorkloadExchangesItsToken(t *testing.T) {
	seed(t, nil)
	given := succeeds[azcore.AccessToken](t)(workload(t, shop).GetToken(deadline(t), policy.TokenRequestOptions{
		Scopes: []string{audience + "/.default"},
	}))
	payload := succeeds[[]byte](t)(base64.RawURLEncoding.DecodeString(strings.Split(given.Token, ".")[1]))
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	for name, expected := range map[string]string{
		"oid": principal, "azp": clientID, "aud": audience, "iss": azure.AuthorityHost + azure.TenantID + "/v2.0",
	} {
		if claims[name] != expected {
			t.Errorf("%s is %v, not %s", name, claims[name], expected)
		}
	}
}

func TestAnotherServiceAccountIsRejected(t *testing.T) {
	seed(t, nil)
	other := workload(t, "system:serviceaccount:shop:somebody-else")
	_, err := other.GetToken(deadline(t), policy.TokenRequestOptions{Scopes: []string{audience + "/.default"}})
	var failed *azidentity.AuthenticationFailedError
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), "AADSTS700213: No matching federated identity record") {
		t.Fatalf("not 700213: %v", err)
	}
}

func TestIdentitiesAreManaged(t *testing.T) {
	seed(t, nil)
	identities, _ := identityClients(t, -1)
	ctx, group := deadline(t), azure.ResourceGroup
	made := succeeds[armmsi.UserAssignedIdentitiesClientCreateOrUpdateResponse](t)(identities.CreateOrUpdate(
		ctx, group, "billing", armmsi.Identity{Location: to.Ptr("eastus"), Tags: map[string]*string{"a": to.Ptr("1")}}, nil,
	))
	if *made.Properties.TenantID != azure.TenantID || *made.Properties.IsolationScope != armmsi.IsolationScopeNone {
		t.Errorf("unexpected properties: %+v", made.Properties)
	}
	patched := succeeds[armmsi.UserAssignedIdentitiesClientUpdateResponse](t)(identities.Update(
		ctx, group, "billing", armmsi.IdentityUpdate{Tags: map[string]*string{"b": to.Ptr("2")}}, nil,
	))
	if len(patched.Tags) != 1 || *patched.Tags["b"] != "2" {
		t.Errorf("unexpected tags: %v", patched.Tags)
	}
	var names []string
	for pager := identities.NewListByResourceGroupPager(group, nil); pager.More(); {
		page := succeeds[armmsi.UserAssignedIdentitiesClientListByResourceGroupResponse](t)(pager.NextPage(ctx))
		for _, identity := range page.Value {
			names = append(names, *identity.Name)
		}
	}
	if !slices.Equal(names, []string{"billing", "orders"}) {
		t.Errorf("unexpected list: %v", names)
	}
	for range 2 { // 200, then 204
		succeeds[armmsi.UserAssignedIdentitiesClientDeleteResponse](t)(identities.Delete(ctx, group, "billing", nil))
	}
	_, err := identities.Get(ctx, group, "billing", nil)
	fails(t, err, 404, "ResourceNotFound")
	_, err = identities.Get(ctx, "absent", "billing", nil)
	fails(t, err, 404, "ResourceGroupNotFound")
}

func TestCredentialsAreManaged(t *testing.T) {
	seed(t, nil)
	_, credentials := identityClients(t, -1)
	ctx, group := deadline(t), azure.ResourceGroup
	for _, subject := range []string{"one", "two", "three"} {
		name := "fic-" + subject
		succeeds[armmsi.FederatedIdentityCredentialsClientCreateOrUpdateResponse](t)(
			credentials.CreateOrUpdate(ctx, group, "orders", name, trust(subject), nil))
	}
	options := &armmsi.FederatedIdentityCredentialsClientListOptions{Top: to.Ptr[int32](3)}
	var pages []int
	for pager := credentials.NewListPager(group, "orders", options); pager.More(); {
		page := succeeds[armmsi.FederatedIdentityCredentialsClientListResponse](t)(pager.NextPage(ctx))
		pages = append(pages, len(page.Value))
	}
	if !slices.Equal(pages, []int{3, 1}) {
		t.Errorf("unexpected pages: %v", pages)
	}
	read := succeeds[armmsi.FederatedIdentityCredentialsClientGetResponse](t)(
		credentials.Get(ctx, group, "orders", "fic-two", nil))
	if *read.Properties.Subject != "two" {
		t.Errorf("unexpected credential: %+v", read.Properties)
	}
	_, err := credentials.CreateOrUpdate(ctx, group, "orders", "twin", trust("two"), nil)
	fails(t, err, 409, "Conflict")
	_, err = credentials.CreateOrUpdate(ctx, group, "absent", "one", trust("one"), nil)
	fails(t, err, 404, "NotFound")
	two := trust("more")
	two.Properties.Audiences = append(two.Properties.Audiences, to.Ptr("api://more"))
	_, err = credentials.CreateOrUpdate(ctx, group, "orders", "two-audiences", two, nil)
	fails(t, err, 400, "BadRequest")
	succeeds[armmsi.FederatedIdentityCredentialsClientDeleteResponse](t)(
		credentials.Delete(ctx, group, "orders", "fic-two", nil))
	_, err = credentials.Get(ctx, group, "orders", "fic-two", nil)
	fails(t, err, 404, "ResourceNotFound")
}

func TestALockForbidsADeletion(t *testing.T) {
	scope := fmt.Sprintf("/subscriptions/%s/resourceGroups/%s", azure.SubscriptionID, azure.ResourceGroup)
	seed(t, map[string]any{"locks": []map[string]string{{"scope": scope}}})
	_, credentials := identityClients(t, -1)
	_, err := credentials.Delete(deadline(t), azure.ResourceGroup, "orders", "trust", nil)
	fails(t, err, 409, "ScopeLocked")
}

func TestAThrottledRequestIsSentAgainWhenAzureSays(t *testing.T) {
	seed(t, nil)
	identities, _ := identityClients(t, 1)
	ctx := deadline(t)
	// A token first, because only the second request is to be throttled.
	succeeds[armmsi.UserAssignedIdentitiesClientGetResponse](t)(identities.Get(ctx, azure.ResourceGroup, "orders", nil))
	control(t, "faults", []any{map[string]any{
		"match":  map[string]string{"kind": "arm-read"},
		"action": map[string]any{"status": 429, "code": "SubscriptionRequestsThrottled", "retryAfter": "1"},
	}})
	began := time.Now()
	succeeds[armmsi.UserAssignedIdentitiesClientGetResponse](t)(identities.Get(ctx, azure.ResourceGroup, "orders", nil))
	if waited := time.Since(began); waited < time.Second {
		t.Errorf("sent again after %s", waited)
	}
}

func TestRolesAreDefinedAndAssigned(t *testing.T) {
	seed(t, nil)
	factory := succeeds[*armauthorization.ClientFactory](t)(
		armauthorization.NewClientFactory(azure.SubscriptionID, workload(t, shop), armOptions(-1)))
	definitions, assignments := factory.NewRoleDefinitionsClient(), factory.NewRoleAssignmentsClient()
	ctx := deadline(t)
	scope := fmt.Sprintf("/subscriptions/%s/resourceGroups/%s", azure.SubscriptionID, azure.ResourceGroup)
	role := armauthorization.RoleDefinition{Properties: &armauthorization.RoleDefinitionProperties{
		RoleName:         to.Ptr("Custom"),
		RoleType:         to.Ptr("CustomRole"),
		Permissions:      []*armauthorization.Permission{{Actions: []*string{to.Ptr("Microsoft.ManagedIdentity/*/read")}}},
		AssignableScopes: []*string{&scope},
	}}
	for range 2 { // created, then updated
		made := succeeds[armauthorization.RoleDefinitionsClientCreateOrUpdateResponse](t)(
			definitions.CreateOrUpdate(ctx, scope, guid, role, nil))
		if *made.Name != guid {
			t.Errorf("unexpected name: %s", *made.Name)
		}
	}
	_, err := definitions.CreateOrUpdate(ctx, scope, "c0500000-0000-4000-8000-000000000002", role, nil)
	fails(t, err, 409, "RoleDefinitionWithSameNameExists")
	filter := &armauthorization.RoleDefinitionsClientListOptions{Filter: to.Ptr("roleName eq 'reader'")}
	page := succeeds[armauthorization.RoleDefinitionsClientListResponse](t)(
		definitions.NewListPager(scope, filter).NextPage(ctx))
	if len(page.Value) != 1 || *page.Value[0].Name != reader {
		t.Errorf("unexpected roles: %v", page.Value)
	}
	assign := func(name string) error {
		id := fmt.Sprintf("/subscriptions/%s/providers/Microsoft.Authorization/roleDefinitions/%s", azure.SubscriptionID, guid)
		_, err := assignments.Create(ctx, scope, name, armauthorization.RoleAssignmentCreateParameters{
			Properties: &armauthorization.RoleAssignmentProperties{
				RoleDefinitionID: &id,
				PrincipalID:      to.Ptr(principal),
				PrincipalType:    to.Ptr(armauthorization.PrincipalTypeServicePrincipal),
			},
		}, nil)
		return err
	}
	const first, second = "a5500000-0000-4000-8000-000000000001", "a5500000-0000-4000-8000-000000000002"
	if err := assign(first); err != nil {
		t.Fatal(err)
	}
	fails(t, assign(second), 409, "RoleAssignmentExists")
	_, err = definitions.Delete(ctx, scope, guid, nil)
	fails(t, err, 400, "RoleDefinitionHasAssignments")
	for range 2 { // 200, then 204
		succeeds[armauthorization.RoleAssignmentsClientDeleteResponse](t)(assignments.Delete(ctx, scope, first, nil))
		succeeds[armauthorization.RoleDefinitionsClientDeleteResponse](t)(definitions.Delete(ctx, scope, guid, nil))
	}
}

func TestWithoutRightsAzureSaysWhatIsMissing(t *testing.T) {
	seed(t, map[string]any{"identities": []map[string]any{{
		"name": "orders", "clientId": clientID, "principalId": principal,
		"federatedIdentityCredentials": []map[string]any{{"name": "trust", "issuer": trusted.url, "subject": shop}},
	}}})
	identities, _ := identityClients(t, -1)
	_, err := identities.Get(deadline(t), azure.ResourceGroup, "orders", nil)
	fails(t, err, 403, "AuthorizationFailed")
	if !strings.Contains(err.Error(), "does not have authorization to perform action 'Microsoft.ManagedIdentity") {
		t.Errorf("unexpected message: %v", err)
	}
}
