//! Every effect of the controller on the outside, as a point that can be numbered.
//!
//! A fault test stands at such a point, in one of its three moments, and takes the process away there. Without a probe
//! an effect is the request and nothing else.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// A write to Kubernetes or to Azure. Kind and object are the same in each run of a scenario.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SideEffect {
    /// What is done, for example `add-finalizer`.
    pub act: &'static str,
    /// What it is done to.
    pub object: String,
}

/// Where in an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Before the request is sent.
    Before,
    /// The request has been carried out, and nobody has seen the answer.
    Applied,
    /// The answer has been taken in.
    Answered,
}

/// Stands at each moment of each effect.
pub trait Probe: Send + Sync + 'static {
    /// The controller has come to this moment and goes on when the future is done.
    fn reached<'a>(&'a self, effect: &'a SideEffect, moment: Phase) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

/// The way of every effect; with nobody watching, unless a test does.
#[derive(Clone, Default)]
pub struct Failpoints(Option<Arc<dyn Probe>>);

impl Failpoints {
    /// Failpoints that a probe watches.
    pub fn watched_by(probe: Arc<dyn Probe>) -> Self {
        Self(Some(probe))
    }

    /// Sends the request and takes its answer in.
    pub(crate) async fn carry_out<T, U>(
        &self,
        effect: impl FnOnce() -> SideEffect,
        request: impl Future<Output = T>,
        take_in: impl FnOnce(T) -> U,
    ) -> U {
        let Some(probe) = &self.0 else { return take_in(request.await) };
        let effect = effect();
        probe.reached(&effect, Phase::Before).await;
        let answer = request.await;
        probe.reached(&effect, Phase::Applied).await;
        let taken = take_in(answer);
        probe.reached(&effect, Phase::Answered).await;
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Diary(Mutex<Vec<Phase>>);

    impl Probe for Diary {
        fn reached<'a>(&'a self, _: &'a SideEffect, moment: Phase) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
            self.0.lock().unwrap().push(moment);
            Box::pin(std::future::ready(()))
        }
    }

    #[tokio::test]
    async fn a_probe_sees_each_moment_in_order_and_the_answer_comes_through() {
        let diary = Arc::new(Diary::default());
        let effects = Failpoints::watched_by(diary.clone());
        let effect = || SideEffect { act: "put", object: "x".into() };
        assert_eq!(effects.carry_out(effect, async { 1 }, |answer| answer + 1).await, 2);
        assert_eq!(*diary.0.lock().unwrap(), [Phase::Before, Phase::Applied, Phase::Answered]);
    }

    #[tokio::test]
    async fn without_a_probe_an_effect_is_the_request() {
        let named = || -> SideEffect { unreachable!("nobody asks for its name") };
        assert_eq!(Failpoints::default().carry_out(named, async { 1 }, |answer| answer).await, 1);
    }
}
