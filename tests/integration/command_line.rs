//! What all commands have in common: exit statuses, help, version, completion, and logs.

use std::process::{Command, Output};

use serde_json::Value;

fn ensign(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ensign"))
        .args(arguments)
        .env_clear()
        .stdin(std::process::Stdio::null())
        .output()
        .expect("run ensign")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every command, as the help lists them.
fn commands() -> Vec<String> {
    let help = text(&ensign(&["--help"]).stdout);
    let listed = help.split("Commands:").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a list");
    let names = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn usage_errors_exit_with_2_and_failures_with_1() {
    let status = |arguments: &[&str]| ensign(arguments).status.code();
    assert_eq!(status(&["version"]), Some(0));
    assert_eq!(status(&["no-such-command"]), Some(2));
    assert_eq!(status(&["azure-role", "--scope=nowhere"]), Some(2));
    assert_eq!(status(&["webhook", "--namespace=Upper"]), Some(2));
    assert_eq!(status(&["policies", "--check=/nowhere/policies.yaml"]), Some(1));
    let teardown = ensign(&["teardown", "--credentials=delete", "--namespace=Upper"]);
    assert_eq!(teardown.status.code(), Some(2), "{}", text(&teardown.stderr));
}

#[test]
fn every_command_has_help() {
    let commands = commands();
    for name in ["controller", "webhook", "check", "teardown", "orphans", "version", "completion"] {
        assert!(commands.iter().any(|command| command == name), "{name} is missing: {commands:?}");
    }
    for command in commands.iter().filter(|command| *command != "help") {
        let help = ensign(&[command, "--help"]);
        assert_eq!(help.status.code(), Some(0), "{command}");
        assert!(text(&help.stdout).contains("Usage: ensign"), "{command}");
    }
    for command in ["check", "teardown", "orphans", "completion"] {
        let help = text(&ensign(&[command, "--help"]).stdout);
        assert!(help.contains("Examples:"), "{command} has no example");
    }
    assert!(text(&ensign(&["--help"]).stdout).contains("Exit status"));
}

#[test]
fn the_version_is_that_of_the_crate_as_text_and_json() {
    assert_eq!(text(&ensign(&["version"]).stdout), format!("ensign {}\n", env!("CARGO_PKG_VERSION")));
    let version: Value = serde_json::from_slice(&ensign(&["version", "-o", "json"]).stdout).expect("JSON");
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(version["apiVersion"], "ensign.dev/v1alpha1");
}

#[test]
fn each_shell_gets_a_script_that_knows_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = text(&ensign(&["completion", shell]).stdout);
        assert!(script.contains("teardown") && script.contains("orphans"), "{shell}");
    }
}
