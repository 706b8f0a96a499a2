//! Admission policies, made as whoever installs makes them.
//!
//! They have the names of an install, so that they are for control planes of our own: a cluster that the caller chose may
//! have an install.

use std::collections::BTreeSet;

use ensign::controller::InjectionTarget;
use ensign::decide::admit::Config;
use ensign::decide::policy::{self, Form, Mode};
use ensign::decide::registration::excluded_namespaces;
use serde_json::{Value, json};

use super::control_plane::ControlPlane;
use super::objects::{apply_all, apply_crds, replace_all};
use super::webhook::{AUDIENCE, NAME};

/// The policies of an install. Dropped, they do nothing any more.
pub struct Policies {
    control_plane: &'static ControlPlane,
}

impl Policies {
    /// Makes what whoever installs makes.
    pub fn install(control_plane: &'static ControlPlane) -> Self {
        apply_crds(control_plane);
        apply_all(control_plane, &policy::manifest());
        let policies = Self { control_plane };
        // A test that failed has left them filled in.
        policies.write(Form::Inert);
        policies
    }

    /// Fills the policies in, as the controller does.
    pub fn fill(&self, config: &Config, covered: &[&str]) {
        let covered: BTreeSet<String> = covered.iter().map(|name| (*name).to_owned()).collect();
        self.write(Form::Live { config, own: "ensign-system", covered: &covered });
    }

    fn write(&self, form: Form<'_>) {
        let object = |policy: policy::Policy| {
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": policy.kind.as_str(),
                "metadata": {"name": policy.name},
                "spec": policy.spec,
            })
        };
        let objects: Vec<Value> = policy::policies(form).into_iter().map(object).collect();
        replace_all(self.control_plane, &objects);
    }
}

impl Drop for Policies {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.write(Form::Inert);
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
            hold: true,
        },
    }
}
