//! Admission policies, made as whoever installs makes them.
//!
//! They have the names of an install, so that they are for control planes of our own: a cluster that the caller chose may
//! have an install.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ensign_controller::InjectionTarget;
use ensign_core::admission::Config;
use ensign_core::cel::{self, Form, Mode};
use ensign_core::webhook_configuration::excluded_namespaces;
use serde_json::{Value, json};

use super::control_plane::ControlPlane;
use super::objects::{apply_all, apply_crds, replace_all};
use super::webhook::{AUDIENCE, NAME};

/// What is known of the policies of control planes, by their kubeconfigs.
static STATES: Mutex<BTreeMap<PathBuf, State>> = Mutex::new(BTreeMap::new());

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// They do nothing.
    Inert,
    /// Somebody may have filled them in.
    Filled,
}

/// The policies of an install. Dropped, they do nothing any more.
pub struct Policies {
    control_plane: &'static ControlPlane,
}

impl Policies {
    /// Makes what whoever installs makes, unless it is there as it should be.
    pub fn install(control_plane: &'static ControlPlane) -> Self {
        let policies = Self { control_plane };
        if policies.state() != Some(State::Inert) {
            policies.make();
            // A test that failed, or that left them to the next one, has left them filled in.
            policies.write(Form::Inert);
        }
        policies.is_now(State::Filled);
        policies
    }

    /// The same for tests of controllers that fill in the same policies one after the other: they are left as they are,
    /// since the API server takes its time to compile them.
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

/// What a controller is told that has the API server inject.
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
