//! The script of `ensign azure-role`, run with a stand-in for `az` that keeps one role and its assignments in files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use super::*;

const AZ: &str = r#"#!/bin/sh
set -euf
cd "$STATE"
method= url= body= parameters=
[ "$1" = rest ]
shift
while [ $# -gt 0 ]; do
  case $1 in
    --method) method=$2; shift ;;
    --url) url=$2; shift ;;
    --body) body=$2; shift ;;
    --uri-parameters) parameters=$2; shift ;;
    --query | --output) shift ;;
    --only-show-errors) ;;
    *) echo "unexpected: $1" >&2; exit 2 ;;
  esac
  shift
done
case $url in *'?api-version=2022-04-01') path=${url%%\?*} ;; *) echo "no version: $url" >&2; exit 2 ;; esac
refuse() { echo "ERROR: Bad Request({\"error\":{\"code\":\"$1\",\"message\":\"no\"}})" >&2; exit 1; }
echo "$method $path $parameters" >>log
if [ "$method" != get ]; then
  echo "$body" >>bodies
  if [ -s errors ]; then
    code=$(head -n 1 errors)
    sed -i 1d errors
    refuse "$code"
  fi
fi
name=${path##*/}
scope=${path%/providers/Microsoft.Authorization/*}
list() { printf '%s' "$body" | sed "s/.*\"$1\":\[\([^]]*\)\].*/\1/; s/\"//g; s/,/ /g"; }
touch assignments
case "$method $path" in
  'get '*/roleDefinitions) [ ! -s role ] || cat guid ;;
  'get '*/roleDefinitions/*) [ -s role ] && [ "$name" = "$(cat guid)" ] || refuse RoleDefinitionDoesNotExist; cat role ;;
  'put '*/roleDefinitions/*)
    printf '%s\n' "$name" >guid
    printf '%s\t0\t%s\n' "$(list actions)" "$(list assignableScopes)" >role ;;
  'get '*/roleAssignments) grep -i "	$scope" assignments || true ;;
  'put '*/roleAssignments/*)
    ! grep -v "^$name" assignments | grep -q "	$scope	" || refuse RoleAssignmentExists
    condition=$(printf '%s' "$body" | sed -n 's/.*"condition":"\(.*\)","conditionVersion".*/\1/p')
    grep -v "^$name" assignments >others || true
    { cat others; printf '%s\t%s\t%s\n' "$name" "$scope" "$condition"; } >assignments ;;
  'delete '*/roleAssignments/*)
    grep -v "^$name" assignments >others || true
    mv others assignments ;;
  *) echo "unexpected: $method $path" >&2; exit 2 ;;
esac
"#;

const SUBSCRIPTION: &str = "/subscriptions/00000000-0000-0000-0000-000000000001";
const OTHER: &str = "/subscriptions/00000000-0000-0000-0000-000000000002";
const PRINCIPAL: &str = "7e000000-0000-4000-8000-00000000007e";
const READER: &str = "acdd72a7-3385-48ef-bd42-f606fba81ae7";

struct Azure(tempfile::TempDir);

impl Azure {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let az = folder.path().join("az");
        fs::write(&az, AZ).unwrap();
        fs::set_permissions(&az, fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// The script for these scopes, run with arguments.
    fn run_in(&self, shell: &str, role: &Role, arguments: &[&str]) -> Output {
        let script = self.path().join("script");
        fs::write(&script, role.script(PRINCIPAL)).unwrap();
        let path = format!("{}:{}", self.path().display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(shell);
        command.arg(script).args(arguments).env("PATH", path).env("STATE", self.path());
        command.env("ENSIGN_AZURE_ROLE_PAUSE", "0").env("ENSIGN_AZURE_ROLE_ATTEMPTS", "4");
        command.output().unwrap()
    }

    /// What it said; it has to succeed.
    fn run(&self, role: &Role, arguments: &[&str]) -> String {
        let done = self.run_in("sh", role, arguments);
        let (said, errors) = (text(&done.stdout), text(&done.stderr));
        assert!(done.status.success(), "{said}{errors}");
        said
    }

    /// Its error; it has to fail.
    fn fail(&self, role: &Role) -> String {
        let done = self.run_in("sh", role, &[]);
        assert!(!done.status.success(), "{}", text(&done.stdout));
        text(&done.stderr)
    }

    fn refuse(&self, codes: &[&str]) {
        fs::write(self.path().join("errors"), codes.join("\n") + "\n").unwrap();
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap_or_default()
    }

    fn writes(&self) -> usize {
        self.file("log").lines().filter(|line| !line.starts_with("get ")).count()
    }

    fn conditions(&self) -> Vec<String> {
        self.file("assignments").lines().filter_map(|line| Some(line.split('\t').nth(2)?.to_owned())).collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn bind(scopes: &[&str]) -> Role {
    let holder = Holder { cluster: Some("prod"), principal_id: None };
    Role::new(&[Feature::Bind].into(), None, holder, scopes.iter().map(|scope| scope.parse().unwrap()).collect())
}

#[test]
fn the_first_run_creates_and_the_second_changes_nothing() {
    let azure = Azure::new();
    let role = bind(&[SUBSCRIPTION, &format!("{OTHER}/resourceGroups/rg")]);
    let said = azure.run(&role, &[]);
    assert!(said.contains("role Ensign bind (prod) (") && said.contains("): created"), "{said}");
    assert_eq!(said.matches("assignment in ").count(), 2, "{said}");
    assert_eq!(azure.writes(), 3);
    for body in azure.file("bodies").lines() {
        serde_json::from_str::<Value>(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    }
    let said = azure.run(&role, &[]);
    assert!(said.contains("nothing had to be changed") && !said.contains("created"), "{said}");
    assert_eq!(azure.writes(), 3, "{}", azure.file("log"));
    let name = "roleName eq 'Ensign bind (prod)'";
    assert!(azure.file("log").contains(&format!("$filter={name}")), "{}", azure.file("log"));
}

#[test]
fn it_runs_in_every_posix_shell_that_is_there() {
    for shell in ["sh", "dash", "bash"] {
        if Command::new(shell).args(["-c", "true"]).output().is_err() {
            continue;
        }
        let azure = Azure::new();
        let done = azure.run_in(shell, &bind(&[SUBSCRIPTION]), &[]);
        assert!(done.status.success() && done.stderr.is_empty(), "{shell}: {}", text(&done.stderr));
    }
}

#[test]
fn what_azure_does_not_know_yet_is_tried_again_for_a_bounded_time() {
    let azure = Azure::new();
    azure.run(&bind(&[SUBSCRIPTION]), &[]);
    let forget = || fs::write(azure.path().join("assignments"), "").unwrap();
    forget();
    azure.refuse(&["RoleDefinitionDoesNotExist", "PrincipalNotFound", "PrincipalNotFound"]);
    let said = azure.run(&bind(&[SUBSCRIPTION]), &[]);
    assert!(said.contains("not known everywhere in Azure yet") && said.contains(": created"), "{said}");
    forget();
    azure.refuse(&["PrincipalNotFound"; 9]);
    assert!(azure.fail(&bind(&[SUBSCRIPTION])).contains("PrincipalNotFound"));
    azure.refuse(&["AuthorizationFailed"]);
    let before = azure.writes();
    assert!(azure.fail(&bind(&[SUBSCRIPTION])).contains("AuthorizationFailed"));
    assert_eq!(azure.writes(), before + 1, "an error that does not pass is not tried again");
}

#[test]
fn a_condition_of_an_existing_assignment_is_updated() {
    let azure = Azure::new();
    let assigning = |role: &str| bind(&[SUBSCRIPTION]).assigning(&[role.to_owned()].into());
    azure.run(&assigning(READER), &[]);
    assert_eq!(azure.conditions(), [condition(&[READER.to_owned()].into())]);
    let said = azure.run(&assigning(PRINCIPAL), &[]);
    assert!(said.contains("condition updated"), "{said}");
    assert_eq!(azure.conditions(), [condition(&[PRINCIPAL.to_owned()].into())], "one assignment, with the new one");
    assert!(azure.run(&assigning(PRINCIPAL), &[]).contains("nothing had to be changed"));
}

#[test]
fn an_assignment_under_another_name_is_found_even_if_the_list_lags() {
    let azure = Azure::new();
    azure.run(&bind(&[SUBSCRIPTION]), &[]);
    let renamed = azure.file("assignments").replacen(|_: char| true, "", 36);
    fs::write(azure.path().join("assignments"), format!("{READER}{renamed}")).unwrap();
    let assigning = bind(&[SUBSCRIPTION]).assigning(&[READER.to_owned()].into());
    azure.refuse(&["RoleAssignmentExists"]);
    azure.run(&assigning, &[]);
    assert!(azure.file("assignments").starts_with(READER), "{}", azure.file("assignments"));
    assert_eq!(azure.conditions().len(), 1);
}

#[test]
fn assignments_that_are_not_asked_for_are_named_and_removed_on_request_only() {
    let azure = Azure::new();
    azure.run(&bind(&[SUBSCRIPTION, OTHER]), &[]);
    let said = azure.run(&bind(&[SUBSCRIPTION]), &[]);
    assert!(said.contains(&format!("assignment in {OTHER}: not asked for any more, and kept")), "{said}");
    assert!(azure.file("role").contains(OTHER), "it stays assignable while it is assigned");
    assert_eq!(azure.conditions().len(), 2);
    let said = azure.run(&bind(&[SUBSCRIPTION]), &["--remove"]);
    assert!(said.contains(&format!("assignment in {OTHER}: removed")), "{said}");
    assert!(!azure.file("role").contains(OTHER) && azure.conditions().len() == 1, "{}", azure.file("role"));
    let done = azure.run_in("sh", &bind(&[SUBSCRIPTION]), &["--delete"]);
    assert!(!done.status.success() && text(&done.stderr).contains("the only argument is --remove"));
}

#[test]
fn a_role_of_that_name_elsewhere_in_the_tenant_is_not_taken() {
    let azure = Azure::new();
    azure.refuse(&["RoleDefinitionWithSameNameExists"]);
    assert!(azure.fail(&bind(&[SUBSCRIPTION])).contains("--cluster or --name"));
}

#[test]
fn without_a_principal_nothing_is_sent() {
    let azure = Azure::new();
    fs::write(azure.path().join("script"), bind(&[SUBSCRIPTION]).script("<object ID>")).unwrap();
    let done = Command::new("sh").arg(azure.path().join("script")).output().unwrap();
    assert!(!done.status.success() && text(&done.stderr).contains("--principal-id"), "{}", text(&done.stderr));
}
