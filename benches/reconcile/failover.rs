//! Two controllers, of which the leader exits: by SIGKILL, and gracefully.

use std::time::{Duration, Instant};

use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::fixture::{Fixture, seconds};
use crate::fleet::{BindingKey, Fleet};

const TIMEOUT: Duration = Duration::from_secs(180);

pub async fn measure(fixture: &mut Fixture) -> Value {
    fixture.ready_fleet().await;
    // An identity with a free slot, for the change that the standby has to write.
    let spare = Fleet { client: fixture.client.clone(), name: "spare".to_owned(), bindings: 1, namespaces: 1 };
    spare.prepare(&fixture.azure).await;
    let key = spare.keys().next().expect("one");
    let (mut crash, mut graceful) = (Vec::new(), Vec::new());
    let mut standby = fixture.controller("controller-a", 900);
    standby.wait_ready().await;
    for round in 0..2 * fixture.args.repeats {
        let mut leader = standby;
        leader.wait_for_metric("ensign_leader", &[], 1.0, TIMEOUT).await;
        standby = fixture.controller(["controller-b", "controller-a"][round % 2], 900);
        standby.wait_ready().await;
        // Once the leader has written the latest change, it has checked everything.
        change(fixture, &spare, &key).await;
        let begun = Instant::now();
        if round % 2 == 0 {
            leader.kill();
        } else {
            leader.terminate();
        }
        spare.create(&key).await;
        wait_for(fixture, &spare, 1).await;
        let took = begun.elapsed();
        fixture
            .progress(&format!("{}: the standby writes after {took:.2?}", ["crash", "graceful shutdown"][round % 2]));
        [&mut crash, &mut graceful][round % 2].push(seconds(took));
        remove(fixture, &spare, &key).await;
    }
    standby.stop();
    json!({"lease_seconds": fixture.args.lease_seconds, "crash_seconds": crash, "graceful_seconds": graceful})
}

async fn change(fixture: &Fixture, spare: &Fleet, key: &BindingKey) {
    spare.create(key).await;
    wait_for(fixture, spare, 1).await;
    remove(fixture, spare, key).await;
}

async fn remove(fixture: &Fixture, spare: &Fleet, key: &BindingKey) {
    spare.api(key).delete(&key.name, &DeleteParams::default()).await.expect("delete the binding");
    wait_for(fixture, spare, 0).await;
    let start = Instant::now();
    while spare.api(key).get_opt(&key.name).await.expect("get the binding").is_some() {
        assert!(start.elapsed() < TIMEOUT, "the binding is not deleted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn wait_for(fixture: &Fixture, spare: &Fleet, credentials: usize) {
    let start = Instant::now();
    while spare.trusted(&fixture.azure) != credentials {
        assert!(start.elapsed() < TIMEOUT, "the standby does not write");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
