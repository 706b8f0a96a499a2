//! `ensign check --exchange` as a process: a token of a real API server, exchanged at the emulator of Entra.

use std::process::Command;

use ensign_azure_emulator::state::ArmRights;
use ensign_testkit::azure::{AUDIENCE, credential, identity};
use ensign_testkit::objects::{kubectl, unique};
use ensign_testkit::replica::ReplicaOptions;
use ensign_testkit::testbed::{Testbed, TestbedTeam};
use serde_json::{Value, json};

/// A binding that a controller has made ready, without the controller.
struct Bound<'a> {
    testbed: &'a Testbed,
    team: TestbedTeam<'a>,
    /// Client ID and token of the one who runs the command.
    own: (String, tempfile::NamedTempFile),
}

impl<'a> Bound<'a> {
    fn start(testbed: &'a Testbed) -> Self {
        let team = testbed.team("exchange");
        kubectl(testbed.control_plane, &["create", "serviceaccount", "app", "--namespace", &team.name]);
        team.bind();
        let controller = testbed.start(&unique("exchange"), ReplicaOptions::default());
        team.wait_ready("app");
        controller.stop().expect("the controller stops");
        let own = Self::operator(testbed, &team.name);
        Self { testbed, team, own }
    }

    /// An identity that may do everything in Azure, and a token for it.
    fn operator(testbed: &Testbed, namespace: &str) -> (String, tempfile::NamedTempFile) {
        let info = testbed.azure.info();
        let mut own = identity(
            ensign_azure_emulator::state::IdentityId {
                subscription: info.subscription_id.clone(),
                resource_group: info.resource_group.clone(),
                name: format!("operator-of-{namespace}"),
            },
            &info.location,
        );
        let subject = format!("system:serviceaccount:{namespace}:default");
        own.arm_rights = ArmRights::All;
        let trust = credential("trust", &testbed.control_plane.issuer, &subject);
        own.credentials.insert(trust.name.clone(), trust);
        let client_id = own.client_id.clone();
        testbed.azure.with_state(|state| state.identities.insert(own.id.key(), own));
        let arguments = ["create", "token", "default", "--namespace", namespace, "--audience", AUDIENCE];
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), kubectl(testbed.control_plane, &arguments)).expect("write the token");
        (client_id, file)
    }

    /// The check's outcome, what it said, and its cure.
    fn check(&self, selected: &str) -> (String, String) {
        let info = self.testbed.azure.info();
        let ca_file = tempfile::NamedTempFile::new().expect("a file");
        let own_ca = std::fs::read_to_string(&self.testbed.control_plane.ca_file).expect("read the CA");
        std::fs::write(ca_file.path(), format!("{}\n{own_ca}", info.ca_pem)).expect("write");
        let done = Command::new(env!("CARGO_BIN_EXE_ensign"))
            .args(["check", "-o", "json", "--allow-private-issuer", "--exchange", selected])
            .args(["--azure-cloud=custom", "--no-proxy=*", "--azure-arm-endpoint", &info.arm_endpoint])
            .args(["--azure-authority-host", &info.authority_host])
            .env("ENSIGN_AZURE_CA_FILE", ca_file.path())
            .env("AZURE_CLIENT_ID", &self.own.0)
            .env("AZURE_TENANT_ID", &info.tenant_id)
            .env("AZURE_FEDERATED_TOKEN_FILE", self.own.1.path())
            .env("KUBECONFIG", &self.testbed.control_plane.kubeconfig)
            .env("ENSIGN_LOG", "debug")
            .env_remove("KUBERNETES_SERVICE_HOST")
            .output()
            .expect("run ensign");
        let (out, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(!out.contains("eyJ") && !errors.contains("eyJ"), "no token is shown: {out}{errors}");
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{errors}"));
        let checks = report["checks"].as_array().expect("checks");
        let found = checks.iter().find(|check| check["check"] == "exchange");
        let found = found.unwrap_or_else(|| panic!("no exchange was tried: {checks:#?}"));
        (found["outcome"].as_str().unwrap_or_default().to_owned(), format!("{} -> {}", found["said"], found["cure"]))
    }

    fn check_app(&self) -> (String, String) {
        self.check(&format!("{}/app", self.team.name))
    }

    /// How many seconds a written credential takes to reach Entra.
    fn propagation(&self, seconds: u32) {
        let name = &self.team.name;
        self.testbed.azure.with_state(|state| {
            state.settings.propagation_seconds = seconds;
            let now = k8s_openapi::jiff::Timestamp::now();
            let team = state.identities.values_mut().find(|found| found.id.name == *name).expect("an identity");
            team.credentials.values_mut().for_each(|one| one.written_at = now);
        });
    }

    /// Whether Entra ever learns the credential. It does once the credential is deleted and written anew.
    fn learned(&self, learns: bool) {
        let name = &self.team.name;
        self.testbed.azure.with_state(|state| {
            let team = state.identities.values_mut().find(|found| found.id.name == *name).expect("an identity");
            let names = team.credentials.keys().filter(|_| !learns).cloned();
            team.entra.unlearned = names.collect();
        });
    }

    /// Makes the binding's status say since when Azure has the credential.
    fn confirmed_since(&self, time: &str) {
        let patch = json!({"status": {"credential": {"confirmedSince": time}}}).to_string();
        let arguments = ["patch", "mib", "app", "--namespace", &self.team.name, "--subresource=status", "--type=merge"];
        kubectl(self.testbed.control_plane, &[&arguments[..], &["--patch", &patch]].concat());
    }
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        self.testbed.azure.with_state(|state| state.settings.propagation_seconds = 0);
    }
}

#[test]
fn a_credential_that_entra_does_not_know_is_told_from_one_that_works_or_is_missing() {
    let testbed = Testbed::acquire();
    let bound = Bound::start(&testbed);
    let (outcome, said) = bound.check_app();
    assert!(outcome == "Ok" && said.contains("Entra issues a token"), "{said}");
    let (outcome, said) = bound.check(&bound.team.name);
    assert!(outcome == "Ok", "the whole namespace: {said}");

    bound.propagation(86_400);
    let (outcome, said) = bound.check_app();
    assert!(outcome == "Warn" && said.contains("does not know it yet") && said.contains("wait"), "{said}");

    bound.propagation(0);
    bound.learned(false);
    bound.confirmed_since("2026-01-01T00:00:00Z");
    let (outcome, said) = bound.check_app();
    let delete = format!("--identity-name {} --name ensign-", bound.team.name);
    assert!(outcome == "Fail" && said.contains("az identity federated-credential delete"), "{said}");
    assert!(said.contains(&delete) && said.contains("AADSTS7002"), "{said}");

    // Deleted and written anew, as the result says, it works.
    bound.learned(true);
    assert_eq!(bound.check_app().0, "Ok");

    let name = &bound.team.name;
    testbed.azure.with_state(|state| {
        let team = state.identities.values_mut().find(|found| found.id.name == *name).expect("an identity");
        team.credentials.clear();
    });
    let (outcome, said) = bound.check_app();
    assert!(outcome == "Fail" && said.contains("AADSTS70025") && said.contains("kubectl describe"), "{said}");
    assert!(!said.contains("federated-credential delete"), "{said}");
}

#[test]
fn what_cannot_be_tried_says_why() {
    let testbed = Testbed::acquire();
    let bound = Bound::start(&testbed);
    let (outcome, said) = bound.check(&format!("{}/absent", bound.team.name));
    assert!(outcome == "Fail" && said.contains("absent"), "{said}");
    let (outcome, said) = bound.check("no-such-namespace");
    assert!(outcome == "Warn" && said.contains("no binding"), "{said}");
    kubectl(testbed.control_plane, &["delete", "serviceaccount", "app", "--namespace", &bound.team.name]);
    let (outcome, said) = bound.check_app();
    assert!(outcome == "Fail" && said.contains("serviceaccounts/token"), "{said}");
}
