//! One reconcile of one identity in Azure, with every `ManagedIdentity` that names it and every binding to those.

use std::time::Duration;

use super::context::Context;
use super::outcome::ReconcileOutcome;
use super::pass::Pass;
use crate::engine::key::Key;
use crate::error::ReconcileError;

/// Keeps identities in Azure in sync with the cluster.
pub(crate) struct IdentityReconciler(pub(crate) Context);

impl IdentityReconciler {
    /// Reconciles the key. The second value is how soon it has to be reconciled again whatever the outcome is, if so: when the
    /// next credential has propagated in Entra, or when a read of Azure that contradicted a write can be settled.
    pub(crate) async fn reconcile(&self, key: &Key) -> (Result<ReconcileOutcome, ReconcileError>, Option<Duration>) {
        let mut pass = match Pass::begin(&self.0, key).await {
            Ok(Some(pass)) => pass,
            Ok(None) => return (Ok(ReconcileOutcome::Nothing), None),
            Err(error) => return (Err(error), None),
        };
        let done = run(&mut pass).await;
        let again_in = pass.again_in();
        (done.map(|()| pass.outcome(key)), again_in)
    }
}

/// The steps. Nothing is written to Azure before the objects that it is for record it and have their finalizer, and no
/// finalizer is removed before Azure has confirmed the deletion.
async fn run(pass: &mut Pass<'_>) -> Result<(), ReconcileError> {
    pass.observe().await;
    pass.write_identity().await?;
    pass.write_credentials().await?;
    pass.write_roles().await?;
    pass.annotate_service_accounts().await?;
    pass.create_dedicated_identities().await?;
    pass.publish_status().await?;
    pass.release_finalizers().await?;
    pass.delete_unclaimed_identities().await
}
