//! Failpoints: every side effect of the controller, as a point at which fault tests can stop the process.
//!
//! Each side effect has three phases. Without a probe it is the request and nothing else.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// A write to Kubernetes or to Azure. Kind and object are the same in each run of a scenario.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SideEffect {
    /// The operation, for example `add-finalizer`.
    pub act: &'static str,
    /// The object that it changes.
    pub object: String,
}

/// A phase of a side effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Before the request is sent.
    Before,
    /// The request was carried out, and the response has not been processed yet.
    Applied,
    /// The response has been processed.
    Answered,
}

/// Is called at each phase of each side effect.
pub trait Probe: Send + Sync + 'static {
    /// The controller has reached this phase and continues when the future completes.
    fn reached<'a>(&'a self, effect: &'a SideEffect, phase: Phase) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

/// Carries out every side effect. Without a probe, it only sends the request.
#[derive(Clone, Default)]
pub struct Failpoints(Option<Arc<dyn Probe>>);

impl Failpoints {
    /// Failpoints that call this probe.
    pub fn watched_by(probe: Arc<dyn Probe>) -> Self {
        Self(Some(probe))
    }

    /// Sends the request and processes the response with `take_in`.
    pub(crate) async fn carry_out<T, U>(
        &self,
        effect: impl FnOnce() -> SideEffect,
        request: impl Future<Output = T>,
        take_in: impl FnOnce(T) -> U,
    ) -> U {
        let Some(probe) = &self.0 else { return take_in(request.await) };
        let effect = effect();
        probe.reached(&effect, Phase::Before).await;
        let response = request.await;
        probe.reached(&effect, Phase::Applied).await;
        let result = take_in(response);
        probe.reached(&effect, Phase::Answered).await;
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Phases(Mutex<Vec<Phase>>);

    impl Probe for Phases {
        fn reached<'a>(&'a self, _: &'a SideEffect, phase: Phase) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
            self.0.lock().unwrap().push(phase);
            Box::pin(std::future::ready(()))
        }
    }

    #[tokio::test]
    async fn a_probe_is_called_at_each_phase_in_order_and_the_response_is_returned() {
        let phases = Arc::new(Phases::default());
        let failpoints = Failpoints::watched_by(phases.clone());
        let effect = || SideEffect { act: "put", object: "x".into() };
        assert_eq!(failpoints.carry_out(effect, async { 1 }, |response| response + 1).await, 2);
        assert_eq!(*phases.0.lock().unwrap(), [Phase::Before, Phase::Applied, Phase::Answered]);
    }

    #[tokio::test]
    async fn without_a_probe_only_the_request_is_sent() {
        let named = || -> SideEffect { unreachable!("without a probe it needs no name") };
        assert_eq!(Failpoints::default().carry_out(named, async { 1 }, |response| response).await, 1);
    }
}
