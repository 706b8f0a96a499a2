//! Additional trusted certificates.

use std::process::Command;

use ensign_azure::Connection;

use super::Azure;

/// Tells the child process what to do.
const SYSTEM_CA: &str = "SSL_CERT_FILE";
const CHILD: &str = "ENSIGN_TEST_CHILD";

/// The system's certificates are named by the environment of a process, so this is a process of its own.
#[test]
fn an_extra_ca_is_trusted_besides_the_systems_and_does_not_replace_them() {
    let system =
        ensign_azure_emulator::Emulator::start(ensign_azure_emulator::EmulatorOptions::default()).expect("a CA");
    let name = "azure::certificates::child_with_certificates_of_its_own";
    let done = Command::new(std::env::current_exe().expect("this program"))
        .args([name, "--exact", "--ignored", "--nocapture"])
        .env(SYSTEM_CA, &system.info().ca_file)
        .env(CHILD, &system.info().arm_endpoint)
        .output()
        .expect("run the child process");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
#[ignore = "runs in a child process of the test above"]
async fn child_with_certificates_of_its_own() {
    let with_system_ca = std::env::var(CHILD).expect("the parent process names the emulator whose CA is the system's");
    let azure = Azure::start();
    let orders = azure.orders();
    let told = |cause: &dyn std::fmt::Display| cause.to_string();

    let of_extra = azure.client(&azure.connection());
    of_extra.get_identity(&orders).await.expect("the extra CA is trusted");
    let without = azure.client(&Connection::default()).get_identity(&orders).await.unwrap_err();
    assert!(told(&without.cause).to_lowercase().contains("certificate"), "{}", without.cause);

    // The other emulator, whose CA is the system's, through the same connection with its extra CA.
    let mut cloud = azure.cloud();
    cloud.arm_endpoint = with_system_ca.parse().expect("a URL");
    let credential = azure.own().credential(&azure.cloud(), &azure.connection()).expect("a credential").credential;
    let client = ensign_azure::ArmClient::new(&cloud, &azure.connection(), credential, "c0ffee00").expect("a client");
    let refused = client.get_identity(&orders).await.unwrap_err();
    assert!(
        told(&refused.cause).contains("HTTP 401"),
        "it was reached, and does not know the token: {}",
        refused.cause
    );
}
