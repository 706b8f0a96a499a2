use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn seconds(count: u64) -> Moment {
    SECOND * u32::try_from(count).unwrap()
}

fn terms() -> Terms {
    Terms::new(15)
}

fn held(version: &str, holder: &str) -> Record {
    Record { version: version.into(), holder: Some(holder.into()), duration: 15 * SECOND, transitions: 3 }
}

fn free(version: &str) -> Record {
    Record { holder: None, ..held(version, "") }
}

fn leader(sent: Moment) -> Candidate {
    let mut candidate = Candidate::new("me", terms());
    candidate.saw(Some(free("1")), sent);
    candidate.replaced(held("2", "me"), sent);
    candidate
}

#[test]
fn a_lease_without_a_holder_is_taken_immediately() {
    let mut candidate = Candidate::new("me", terms());
    assert_eq!(candidate.next(seconds(0)), Act::Look);
    candidate.saw(Some(free("7")), seconds(1));
    let take = Act::Replace { version: "7".into(), transitions: 4, taking: true };
    assert_eq!(candidate.next(seconds(1)), take);
    assert_eq!(candidate.authority_ends(), None, "only the response gives authority");
    candidate.replaced(held("8", "me"), seconds(1));
    assert_eq!(candidate.authority_ends(), Some(seconds(11)));
}

#[test]
fn a_held_lease_is_taken_only_after_it_was_unchanged_for_its_whole_duration() {
    let mut candidate = Candidate::new("me", terms());
    candidate.saw(Some(held("1", "other")), seconds(100));
    candidate.saw(Some(held("1", "other")), seconds(112));
    assert_eq!(candidate.next(seconds(113)), Act::Wait(seconds(112) + terms().look_every()));
    assert_eq!(candidate.next(seconds(114)), Act::Wait(seconds(112) + terms().look_every()));
    let take = Act::Replace { version: "1".into(), transitions: 4, taking: true };
    assert_eq!(candidate.next(seconds(115)), take);
}

#[test]
fn a_renewal_restarts_the_wait() {
    let mut candidate = Candidate::new("me", terms());
    candidate.saw(Some(held("1", "other")), seconds(100));
    candidate.saw(Some(held("2", "other")), seconds(114));
    assert_eq!(candidate.next(seconds(120)), Act::Look);
    candidate.saw(Some(held("2", "other")), seconds(128));
    assert!(matches!(candidate.next(seconds(129)), Act::Replace { .. }));
}

#[test]
fn the_holders_lease_duration_applies() {
    let mut candidate = Candidate::new("me", terms());
    let record = Record { duration: 60 * SECOND, ..held("1", "other") };
    candidate.saw(Some(record.clone()), seconds(0));
    candidate.saw(Some(record.clone()), seconds(59));
    assert!(matches!(candidate.next(seconds(59)), Act::Wait(_)));
    assert!(matches!(candidate.next(seconds(60)), Act::Replace { .. }));
}

#[test]
fn after_a_conflict_a_candidate_reads_before_it_writes_again() {
    let mut candidate = Candidate::new("me", terms());
    candidate.saw(Some(free("1")), seconds(0));
    candidate.behind(seconds(1));
    assert_eq!(candidate.next(seconds(1)), Act::Look);
}

#[test]
fn a_missing_lease_is_created_and_gives_leadership_only_after_its_whole_duration() {
    let mut candidate = Candidate::new("me", terms());
    candidate.saw(None, seconds(0));
    candidate.saw(None, seconds(4));
    assert!(matches!(candidate.next(seconds(4)), Act::Wait(_)), "a leader would recreate it");
    assert_eq!(candidate.next(seconds(5)), Act::Create { transitions: 0 });
    candidate.created(held("1", "me"), seconds(5), seconds(6));
    assert_eq!(candidate.authority_ends(), None);
    candidate.saw(Some(held("1", "me")), seconds(20));
    assert!(matches!(candidate.next(seconds(20)), Act::Wait(_)));
    assert!(matches!(candidate.next(seconds(21)), Act::Replace { taking: true, .. }));
}

#[test]
fn a_leader_renews_and_recreates_a_deleted_lease_without_losing_leadership() {
    let mut leader = leader(seconds(0));
    assert_eq!(leader.next(seconds(0)), Act::Wait(terms().renew_every()));
    assert!(matches!(leader.next(seconds(3)), Act::Replace { taking: false, transitions: 3, .. }));
    leader.behind(seconds(3));
    assert_eq!(leader.next(seconds(3)), Act::Look);
    leader.saw(None, seconds(3));
    assert_eq!(leader.next(seconds(3)), Act::Create { transitions: 3 });
    leader.created(held("9", "me"), seconds(3), seconds(4));
    assert_eq!(leader.authority_ends(), Some(seconds(13)));
}

#[test]
fn a_leader_whose_renewals_fail_stops_before_the_lease_expires() {
    let mut leader = leader(seconds(0));
    leader.unanswered(seconds(3));
    assert_eq!(leader.next(seconds(4)), Act::Look);
    leader.unanswered(seconds(9));
    assert_eq!(leader.next(seconds(9)), Act::Wait(seconds(10)));
    assert_eq!(leader.next(seconds(10)), Act::Lost(Loss::NotRenewed));
}

#[test]
fn a_renewal_whose_response_was_lost_is_recognized() {
    let mut leader = leader(seconds(0));
    leader.unanswered(seconds(4));
    leader.saw(Some(held("3", "me")), seconds(5));
    assert_eq!(leader.authority_ends(), Some(seconds(10)), "it is unknown when it was applied");
    assert!(matches!(leader.next(seconds(5)), Act::Replace { version, .. } if version == "3"));
}

#[test]
fn a_leader_that_finds_another_holder_or_a_modified_lease_stops_immediately() {
    let mut superseded = leader(seconds(0));
    superseded.behind(seconds(3));
    superseded.saw(Some(held("3", "other")), seconds(3));
    assert_eq!(superseded.next(seconds(3)), Act::Lost(Loss::Taken { holder: "other".into() }));
    assert_eq!(superseded.authority_ends(), None);
    for forged in [free("3"), Record { transitions: 7, ..held("3", "me") }] {
        let mut leader = leader(seconds(0));
        leader.behind(seconds(3));
        leader.saw(Some(forged), seconds(3));
        assert_eq!(leader.next(seconds(3)), Act::Lost(Loss::Tampered));
    }
}

#[test]
fn a_lease_without_a_duration_is_malformed_unless_it_has_no_holder() {
    let version = || Some("1".to_owned());
    let holder = Some("x".to_owned());
    assert!(matches!(Record::new(version(), holder.clone(), None, None), Err(Malformed::NoDuration { .. })));
    assert!(matches!(Record::new(version(), holder.clone(), Some(-1), None), Err(Malformed::NoDuration { .. })));
    assert_eq!(Record::new(None, holder, Some(15), None), Err(Malformed::NoVersion));
    let empty = Record::new(version(), Some(String::new()), None, Some(-4)).unwrap();
    assert_eq!((empty.holder, empty.transitions), (None, 0));
}

#[test]
fn each_interval_fits_into_the_next_longer_one() {
    for duration in [MIN_DURATION_SECONDS, 15, MAX_DURATION_SECONDS] {
        let terms = Terms::new(duration);
        assert!(terms.renew_every() + terms.request_deadline() + terms.retry_after() < terms.authority());
        assert!(terms.renew_every() + terms.retry_after() < terms.create_after());
        assert!(
            terms.authority() + terms.request_deadline() < terms.duration(),
            "a late renewal can't overlap with another leader"
        );
        let slow_renewal = terms.renew_every() + terms.request_deadline();
        assert!(slow_renewal + terms.least_for_a_write() < terms.authority(), "a slow renewal blocks no write");
    }
}

/// A model: an API server, candidates with independent clocks, and a network that delays, loses and reorders messages.
mod model {
    use super::*;

    #[derive(Clone, Debug)]
    pub(crate) struct Run {
        /// For each candidate: the offset of its monotonic clock in ms, and its speed in per mille of real time.
        pub(crate) clocks: Vec<(u64, u64)>,
        /// What happens, in order.
        pub(crate) steps: Vec<Step>,
    }

    #[derive(Clone, Debug)]
    pub(crate) struct Step {
        /// The candidate that acts.
        who: usize,
        /// How long nothing happens before, in ms.
        pause: u64,
        /// Latency of the request, in ms.
        there: u64,
        /// Latency of the response, in ms.
        back: u64,
        /// Whether the request or the response is lost.
        lost: Lost,
        /// Whether another client deletes the lease before.
        deleted: bool,
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Lost {
        Nothing,
        Request,
        Answer,
    }

    pub(crate) fn any_run() -> impl Strategy<Value = Run> {
        let clock = (0..1_000_000_u64, 900..=1100_u64);
        let latency = || prop_oneof![6 => 0..300_u64, 1 => 0..20_000_u64];
        let lost = prop_oneof![12 => Just(Lost::Nothing), 1 => Just(Lost::Request), 1 => Just(Lost::Answer)];
        let pause = prop_oneof![8 => 0..1500_u64, 1 => 0..20_000_u64];
        let step = (0..3_usize, pause, latency(), latency(), lost, prop::bool::weighted(0.04))
            .prop_map(|(who, pause, there, back, lost, deleted)| Step { who, pause, there, back, lost, deleted });
        (prop::collection::vec(clock, 3), prop::collection::vec(step, 1..400))
            .prop_map(|(clocks, steps)| Run { clocks, steps })
    }

    struct Actor {
        candidate: Candidate,
        offset: u64,
        speed: u64,
        busy: Option<Request>,
    }

    #[derive(Clone)]
    struct Request {
        act: Act,
        sent: Moment,
        id: u64,
    }

    impl Actor {
        fn local(&self, real: u64) -> Moment {
            Duration::from_millis(self.offset + real * self.speed / 1000)
        }
    }

    /// A message in flight.
    enum Arrival {
        AtServer { who: usize, request: Request, back: u64, lost: Lost },
        AtCandidate { who: usize, request: u64, answer: Answer },
        Deadline { who: usize, request: u64 },
    }

    enum Answer {
        Found(Option<Record>),
        Stored(Record),
        Rejected,
    }

    #[derive(Default)]
    struct Server {
        lease: Option<Record>,
        version: u64,
    }

    impl Server {
        fn apply(&mut self, act: &Act, identity: &str) -> Answer {
            let (applies, transitions) = match act {
                Act::Create { transitions } => (self.lease.is_none(), *transitions),
                Act::Replace { version, transitions, .. } => {
                    (self.lease.as_ref().is_some_and(|lease| lease.version == *version), *transitions)
                }
                _ => return Answer::Found(self.lease.clone()),
            };
            if !applies {
                return Answer::Rejected;
            }
            self.version += 1;
            let holder = Some(identity.to_owned());
            let record =
                Record { version: self.version.to_string(), holder, duration: terms().duration(), transitions };
            self.lease = Some(record.clone());
            Answer::Stored(record)
        }
    }

    /// Runs the model. Returns how often a candidate became the leader.
    pub(crate) fn play(run: &Run) -> Result<u32, TestCaseError> {
        let actor = |(index, (offset, speed)): (usize, &(u64, u64))| Actor {
            candidate: Candidate::new(format!("candidate-{index}"), terms()),
            offset: *offset,
            speed: *speed,
            busy: None,
        };
        let mut actors: Vec<Actor> = run.clocks.iter().enumerate().map(actor).collect();
        let mut server = Server::default();
        let mut in_flight: BTreeMap<(u64, u64), Arrival> = BTreeMap::new();
        let (mut real, mut ids, mut led) = (0_u64, 0_u64, 0_u32);
        let mut leaders = Vec::new();
        for step in &run.steps {
            let until = real + step.pause;
            while let Some(entry) = in_flight.first_entry().filter(|entry| entry.key().0 <= until) {
                real = entry.key().0;
                match entry.remove() {
                    Arrival::AtServer { who, request, back, lost } => {
                        let answer = server.apply(&request.act, actors[who].candidate.identity());
                        if lost == Lost::Nothing {
                            ids += 1;
                            let arrival = Arrival::AtCandidate { who, request: request.id, answer };
                            in_flight.insert((real + back, ids), arrival);
                        }
                    }
                    Arrival::AtCandidate { who, request, answer } => receive(&mut actors[who], real, request, answer),
                    Arrival::Deadline { who, request } => give_up(&mut actors[who], real, request),
                }
                check(&actors, real, &mut leaders, &mut led)?;
            }
            real = until;
            check(&actors, real, &mut leaders, &mut led)?;
            if step.deleted {
                server.lease = None;
            }
            let actor = &mut actors[step.who];
            let now = actor.local(real);
            if actor.busy.is_some() {
                continue;
            }
            match actor.candidate.next(now) {
                Act::Wait(_) => {}
                // A process that lost leadership exits, and another one starts in its place.
                Act::Lost(_) => {
                    ids += 1;
                    actor.candidate = Candidate::new(format!("candidate-{}-{ids}", step.who), terms());
                }
                act => {
                    ids += 1;
                    let request = Request { act, sent: now, id: ids };
                    actor.busy = Some(request.clone());
                    // The deadline is measured by the candidate's clock.
                    let patience = u64::try_from(terms().request_deadline().as_millis()).unwrap() * 1000 / actor.speed;
                    in_flight.insert((real + patience, ids), Arrival::Deadline { who: step.who, request: request.id });
                    if step.lost != Lost::Request {
                        ids += 1;
                        let arrival = Arrival::AtServer { who: step.who, request, back: step.back, lost: step.lost };
                        in_flight.insert((real + step.there, ids), arrival);
                    }
                }
            }
        }
        Ok(led)
    }

    fn receive(actor: &mut Actor, real: u64, request: u64, answer: Answer) {
        let now = actor.local(real);
        let Some(Request { act, sent, .. }) = actor.busy.take_if(|busy| busy.id == request) else { return };
        match (answer, act) {
            (Answer::Found(found), _) => actor.candidate.saw(found, now),
            (Answer::Stored(stored), Act::Create { .. }) => actor.candidate.created(stored, sent, now),
            (Answer::Stored(stored), _) => actor.candidate.replaced(stored, sent),
            (Answer::Rejected, _) => actor.candidate.behind(now),
        }
    }

    fn give_up(actor: &mut Actor, real: u64, request: u64) {
        let now = actor.local(real);
        if actor.busy.take_if(|busy| busy.id == request).is_some() {
            actor.candidate.unanswered(now);
        }
    }

    fn check(actors: &[Actor], real: u64, before: &mut Vec<String>, led: &mut u32) -> Result<(), TestCaseError> {
        let leads = |actor: &&Actor| actor.candidate.authority_ends().is_some_and(|ends| actor.local(real) < ends);
        let leaders: Vec<String> =
            actors.iter().filter(leads).map(|actor| actor.candidate.identity().to_owned()).collect();
        prop_assert!(leaders.len() <= 1, "at {real} ms: {leaders:?}");
        *led += u32::from(!leaders.is_empty() && leaders != *before);
        *before = leaders;
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn two_candidates_never_lead_at_the_same_time(run in model::any_run()) {
        model::play(&run)?;
    }
}

#[test]
fn the_model_has_leaders_and_changes_of_leaders() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let led: u32 =
        (0..64).map(|_| model::play(&model::any_run().new_tree(&mut runner).unwrap().current()).unwrap()).sum();
    assert!(led > 64, "{led} changes of leaders in 64 runs prove little");
}
