//! Two controllers, of which the one that leads goes: by SIGKILL, and in order.

use std::time::{Duration, Instant};

use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::fleet::{Fleet, Place};
use crate::scene::{Scene, seconds};

const PATIENCE: Duration = Duration::from_secs(180);

pub async fn measure(scene: &mut Scene) -> Value {
    scene.standing().await;
    // One identity with room, for the change that the other controller has to write.
    let spare = Fleet { client: scene.client.clone(), name: "spare".to_owned(), bindings: 1, namespaces: 1 };
    spare.prepare(&scene.azure).await;
    let place = spare.places().next().expect("one");
    let (mut crash, mut graceful) = (Vec::new(), Vec::new());
    let mut standby = scene.controller("controller-a", 900);
    standby.ready().await;
    for round in 0..2 * scene.args.repeats {
        let mut leader = standby;
        leader.reaches("ensign_leader", &[], 1.0, PATIENCE).await;
        standby = scene.controller(["controller-b", "controller-a"][round % 2], 900);
        standby.ready().await;
        // The leader has looked at everything when it has written what came last.
        change(scene, &spare, &place).await;
        let begun = Instant::now();
        if round % 2 == 0 {
            leader.kill();
        } else {
            leader.terminate();
        }
        spare.create(&place).await;
        wait_for(scene, &spare, 1).await;
        let took = begun.elapsed();
        scene.say(&format!("{}: the other one writes after {took:.2?}", ["crash", "in order"][round % 2]));
        [&mut crash, &mut graceful][round % 2].push(seconds(took));
        remove(scene, &spare, &place).await;
    }
    standby.stop();
    json!({"lease_seconds": scene.args.lease_seconds, "crash_seconds": crash, "graceful_seconds": graceful})
}

async fn change(scene: &Scene, spare: &Fleet, place: &Place) {
    spare.create(place).await;
    wait_for(scene, spare, 1).await;
    remove(scene, spare, place).await;
}

async fn remove(scene: &Scene, spare: &Fleet, place: &Place) {
    spare.api(place).delete(&place.name, &DeleteParams::default()).await.expect("delete the binding");
    wait_for(scene, spare, 0).await;
    let start = Instant::now();
    while spare.api(place).get_opt(&place.name).await.expect("look for the binding").is_some() {
        assert!(start.elapsed() < PATIENCE, "the binding goes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn wait_for(scene: &Scene, spare: &Fleet, credentials: usize) {
    let start = Instant::now();
    while spare.trusted(&scene.azure) != credentials {
        assert!(start.elapsed() < PATIENCE, "the other controller writes");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
