//! The ARM client with the SDK's own credential, against the emulator: permissions, rejected tokens, proxies,
//! certificates, and what is never logged.

mod canary;
mod certificates;
mod check;
mod exchange;
mod orphans;
mod proxy;
mod requests;
mod role;
mod teardown;
mod tokens;

use std::io::Write;

use ensign_api::ArmId;
use ensign_azure::cloud::{Cloud, CloudArgs};
use ensign_azure::credential::OwnIdentity;
use ensign_azure::{ArmClient, Connection};
use ensign_azure_emulator::state::{ArmRights, StateDocument};
use ensign_azure_emulator::{
    Emulator, EmulatorOptions, FaultAction, FaultAnswer, FaultMatch, FaultRule, LogEntry, LogFilter, LogKind,
};
use ensign_core::credentials::ownership::Credential;
use serde_json::{Value, json};

use crate::emulator::issuer::Issuer;

const CONTROLLER: &str = "system:serviceaccount:ensign-system:ensign-controller";

/// An emulator with the identity `orders` and the controller's own identity, whose token an issuer signs.
struct Azure {
    emulator: Emulator,
    token_file: tempfile::NamedTempFile,
    issuer: Issuer,
}

impl Azure {
    /// Runs on the test's runtime.
    fn start() -> Self {
        let issuer = Issuer::start();
        let trust = json!({"name": "trust", "issuer": issuer.url, "subject": CONTROLLER});
        let seed: StateDocument = serde_json::from_value(json!({"identities": [
            {"name": "orders"},
            {"name": "controller", "armRights": "all", "federatedIdentityCredentials": [trust]},
        ]}))
        .expect("a state");
        let options =
            EmulatorOptions { seed, issuer_ca_pems: vec![issuer.ca_pem.clone()], ..EmulatorOptions::default() };
        let emulator = Emulator::start(options).expect("start the Azure emulator");
        let azure = Self { emulator, token_file: tempfile::NamedTempFile::new().expect("a file"), issuer };
        azure.give_token(&azure.issuer.token(CONTROLLER));
        azure
    }

    /// Writes a token to the controller's token file.
    fn give_token(&self, token: &str) {
        let mut file = std::fs::File::create(self.token_file.path()).expect("open the token file");
        file.write_all(token.as_bytes()).expect("write the token file");
    }

    fn cloud(&self) -> Cloud {
        let info = self.emulator.info();
        // Another name for the same host, so that requests to Entra and to ARM can be told apart.
        let authority_host = info.authority_host.replace("127.0.0.1", "localhost");
        CloudArgs { azure_authority_host: Some(authority_host), ..info.cloud() }.resolve().expect("a cloud")
    }

    fn connection(&self) -> Connection {
        self.emulator.info().connection()
    }

    /// The controller's own identity.
    fn own(&self) -> OwnIdentity {
        let client_id = self.emulator.with_state(|state| {
            let own = state.identities.values().find(|found| found.id.name == "controller");
            own.expect("it exists").client_id.clone()
        });
        let tenant_id = self.emulator.info().tenant_id.clone();
        OwnIdentity::Workload { client_id, tenant_id, token_file: self.token_file.path().to_owned() }
    }

    /// The controller's client, created as the controller creates it.
    fn client(&self, connection: &Connection) -> ArmClient {
        ensign_runtime::tls::install_provider();
        let own = self.own().credential(&self.cloud(), connection).expect("a credential");
        ArmClient::new(&self.cloud(), connection, own.credential, "c0ffee00").expect("create an ARM client")
    }

    /// `ensign` as the controller's own identity would run it, against this Azure.
    fn ensign(&self, arguments: &[&str]) -> std::process::Command {
        let OwnIdentity::Workload { client_id, tenant_id, token_file } = self.own() else {
            panic!("the fixture has a workload identity");
        };
        let (info, cloud) = (self.emulator.info(), self.cloud());
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ensign"));
        command
            .args(arguments)
            .args(["--azure-cloud=custom", "--no-proxy=*", "--azure-arm-endpoint", &info.arm_endpoint])
            .args(["--azure-authority-host", cloud.authority_host.as_str()])
            .env("ENSIGN_AZURE_CA_FILE", &info.ca_file)
            .env("AZURE_CLIENT_ID", client_id)
            .env("AZURE_TENANT_ID", tenant_id)
            .env("AZURE_FEDERATED_TOKEN_FILE", token_file)
            .env("KUBECONFIG", "/nowhere/kubeconfig")
            .env_remove("KUBERNETES_SERVICE_HOST")
            .stdin(std::process::Stdio::null());
        command
    }

    fn orders(&self) -> ArmId {
        let info = self.emulator.info();
        let id = format!(
            "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders",
            info.subscription_id, info.resource_group
        );
        id.parse().expect("an ARM ID")
    }

    /// Limits the controller's own identity to some actions.
    fn allow(&self, actions: impl IntoIterator<Item = String>) {
        self.emulator.with_state(|state| {
            let own = state.identities.values_mut().find(|found| found.id.name == "controller").expect("it exists");
            own.arm_rights = ArmRights::Actions(actions.into_iter().collect());
        });
    }

    /// Scripts the response to some requests of a kind.
    fn answer(&self, kind: LogKind, times: u64, answer: FaultAnswer) {
        self.emulator.set_faults(vec![rule(kind, times, answer)]);
    }

    /// The requests of a kind so far.
    fn requests(&self, kind: LogKind) -> Vec<LogEntry> {
        let entries = self.emulator.log(&LogFilter::default());
        entries.into_iter().filter(|entry| entry.kind == kind).collect()
    }

    fn statuses(&self, kind: LogKind) -> Vec<u16> {
        self.requests(kind).into_iter().filter_map(|entry| entry.status).collect()
    }
}

fn rule(kind: LogKind, times: u64, answer: FaultAnswer) -> FaultRule {
    let matching = FaultMatch { kind: Some(kind), ..FaultMatch::default() };
    FaultRule { matching, nth: 1, times, action: FaultAction::Answer(answer), matched: 0, fired: 0 }
}

fn error_response(status: u16, code: &str, message: &str) -> FaultAnswer {
    FaultAnswer { status, code: Some(code.to_owned()), message: Some(message.to_owned()), ..FaultAnswer::default() }
}

fn body(status: u16, body: Value) -> FaultAnswer {
    FaultAnswer { body: Some(body), ..error_response(status, "", "") }
}

/// What Ensign would write for a service account.
fn credential() -> Credential {
    Credential {
        name: "ensign-c0ffee00-shop-app-0123456789abcdef".to_owned(),
        issuer: "https://issuer.example".to_owned(),
        subject: "system:serviceaccount:shop:app".to_owned(),
        audiences: vec!["api://AzureADTokenExchange".to_owned()],
    }
}
