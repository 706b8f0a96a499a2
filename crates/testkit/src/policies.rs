//! Admission policies, created as an install creates them.
//!
//! They have the names of an install, so they are only used on the tests' own control planes: a cluster that the caller chose may
//! contain an install.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ensign_controller::InjectionTarget;
use ensign_core::admission::Config;
use ensign_core::cel::{self, Form, Mode};
use ensign_core::webhook_configuration::excluded_namespaces;
use serde_json::{Value, json};

use super::azure::AUDIENCE;
use super::control_plane::ControlPlane;
use super::objects::{apply_all, apply_crds, replace_all};
use super::webhook::NAME;

/// The state of each control plane's policies, by kubeconfig.
static STATES: Mutex<BTreeMap<PathBuf, State>> = Mutex::new(BTreeMap::new());

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// They have no effect.
    Inert,
    /// A controller or a test may have filled them in.
    Filled,
}

/// The policies of an install. When this is dropped, they have no effect any more.
pub struct Policies {
    control_plane: &'static ControlPlane,
}

impl Policies {
    /// Creates what an install creates, unless it exists already.
    pub fn install(control_plane: &'static ControlPlane) -> Self {
        let policies = Self { control_plane };
        if policies.state() != Some(State::Inert) {
            policies.make();
            // A failed test, or one that left them to controllers, has left them filled in.
            policies.write(Form::Inert);
        }
        policies.is_now(State::Filled);
        policies
    }

    /// The same for tests whose controllers fill in the policies one after the other: they are left as they are,
    /// since the API server takes long to compile them.
    pub fn leave_to_controllers(control_plane: &'static ControlPlane) {
        let policies = std::mem::ManuallyDrop::new(Self { control_plane });
        if policies.state().is_none() {
            policies.make();
        }
        policies.is_now(State::Filled);
    }

    fn make(&self) {
        apply_crds(self.control_plane);
        let objects: Vec<Value> = cel::inert().into_iter().chain(cel::bindings()).collect();
        apply_all(self.control_plane, &objects);
    }

    fn state(&self) -> Option<State> {
        states().get(&self.control_plane.kubeconfig).copied()
    }

    fn is_now(&self, state: State) {
        states().insert(self.control_plane.kubeconfig.clone(), state);
    }

    /// Fills the policies in, as the controller does.
    pub fn fill(&self, config: &Config, covered: &[&str]) {
        let covered: BTreeSet<String> = covered.iter().map(|name| (*name).to_owned()).collect();
        self.write(Form::Live { config, own: "ensign-system", covered: &covered });
    }

    fn write(&self, form: Form<'_>) {
        let object = |policy: cel::Policy| {
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": policy.kind.as_str(),
                "metadata": {"name": policy.name},
                "spec": policy.spec,
            })
        };
        let objects: Vec<Value> = cel::policies(form).into_iter().map(object).collect();
        replace_all(self.control_plane, &objects);
    }
}

fn states() -> MutexGuard<'static, BTreeMap<PathBuf, State>> {
    STATES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Policies {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.write(Form::Inert);
            self.is_now(State::Inert);
        }
    }
}

/// The settings of a controller in policy mode.
pub fn target(authority_host: &str) -> InjectionTarget {
    InjectionTarget {
        mode: Mode::Policy,
        namespace: NAME.to_owned(),
        config: Config {
            authority_host: authority_host.to_owned(),
            audience: AUDIENCE.to_owned(),
            excluded: excluded_namespaces(NAME, []),
            compatibility: None,
            gate_pods: true,
        },
    }
}
