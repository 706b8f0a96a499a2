//! Which cluster the tests may use instead of their own: one on this machine, or any that the caller explicitly allows.
//!
//! `make test` applies the same rule before it starts them (`dev/ensign_dev/chosen_cluster.py`).

/// Why the tests must not use a server, or `None` if they may.
pub fn rejection(server: &str, allow_remote: Option<&str>) -> Option<String> {
    let loopback = url::Url::parse(server).is_ok_and(|url| match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    });
    (!loopback && allow_remote != Some("yes")).then(|| {
        format!(
            "ENSIGN_TEST_KUBECONFIG points at {server}, which is not on this machine. The tests create and delete \
             cluster-wide objects. If that is what you want, set ENSIGN_TEST_ALLOW_REMOTE=yes."
        )
    })
}

#[test]
fn a_remote_cluster_is_rejected_unless_explicitly_allowed() {
    for server in ["https://127.0.0.1:6443", "https://127.9.9.9", "https://localhost:6443", "https://[::1]:6443/p"] {
        assert_eq!(rejection(server, None), None);
    }
    for server in
        ["https://10.0.0.1", "https://localhost.example.com", "https://127.0.0.1@example.com", "127.0.0.1:1", ""]
    {
        assert!(rejection(server, None).is_some_and(|said| said.contains("ENSIGN_TEST_ALLOW_REMOTE=yes")), "{server}");
        assert!(rejection(server, Some("true")).is_some(), "{server}");
        assert_eq!(rejection(server, Some("yes")), None);
    }
}
