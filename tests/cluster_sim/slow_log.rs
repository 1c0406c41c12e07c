//! Reads while the log responds late, or not at all.

use serde_json::Value;
use speak::hub::{Pair, PairKind};

use crate::cluster::{Asked, Cluster};

/// Time in which the nodes join.
const JOIN_MS: u64 = 12_000;

/// Nodes that are far away from Redis, and a session that the first one holds.
struct Scene {
    cluster: Cluster,
    credentials: [(&'static str, String); 2],
}

impl Scene {
    fn new(delays_ms: &[u64]) -> Self {
        let mut cluster = Cluster::start(2, delays_ms, None);
        cluster.pass(JOIN_MS);
        let asked = cluster.ask(0, "/introduce", &[("channel", "c"), ("message", "Josh")]);
        let (status, body) = cluster.await_response(asked, 3_000);
        assert_eq!(status, 200, "{body}");
        let auth = body["auth"].as_str().expect("a secret").to_owned();
        let credentials = [("connection", body["connection"].to_string()), ("auth", auth)];
        Self { cluster, credentials }
    }

    /// Sends a read of the session from an id on.
    fn read(&mut self, node: usize, from_id: u64, more: &[(&str, &str)]) -> Asked {
        let from_id = from_id.to_string();
        let mut params = vec![("channel", "c"), ("from_id", &from_id)];
        params.extend(self.credentials.iter().map(|(key, value)| (*key, value.as_str())));
        params.extend(more);
        self.cluster.ask(node, "/read", &params)
    }

    /// Writes at the first node, and returns the id.
    fn write(&mut self) -> u64 {
        let asked = self.cluster.ask(0, "/write", &[("channel", "c"), ("message", "howdy")]);
        let (status, body) = self.cluster.await_response(asked, 3_000);
        assert_eq!(status, 200, "{body}");
        body["id"].as_u64().expect("an id")
    }
}

fn ids(body: &Value) -> Vec<u64> {
    let messages = body["messages"].as_array().expect("messages");
    messages.iter().filter_map(|message| message["id"].as_u64()).collect()
}

/// The log takes no hold of the session, and the read is made all the same.
#[test]
fn a_node_that_cannot_follow_the_log_says_of_no_id_that_it_was_not_given() {
    let mut scene = Scene::new(&[20]);
    let follower = scene.cluster.nodes[1].link + 1;
    // Each connection is too short for a page of the log.
    let pass_cut = |scene: &mut Scene, ms: u64| {
        for _ in 0..ms / 10 {
            scene.cluster.broker.borrow_mut().cut(follower);
            scene.cluster.pass(10);
        }
    };
    let write = scene.cluster.ask(0, "/write", &[("channel", "c"), ("message", "howdy")]);
    pass_cut(&mut scene, 200);
    let (_, body) = scene.cluster.take(write).expect("it is acknowledged");
    let asked = scene.read(1, body["id"].as_u64().expect("an id") + 1, &[]);
    pass_cut(&mut scene, 7_000);
    assert!(scene.cluster.take(asked).is_none());
    scene.cluster.pass(5_000);
    let next = scene.write();
    let (status, body) = scene.cluster.await_response(asked, 3_000);
    assert_eq!((status, ids(&body)), (200, vec![next]), "{body}");
    assert!(body.get("reset").is_none(), "{body}");
}

#[test]
fn a_read_does_not_wait_for_a_hold_while_redis_does_not_respond() {
    let mut scene = Scene::new(&[0]);
    let asked = scene.read(1, 1, &[("timeout", "0")]);
    let now = scene.cluster.now;
    scene.cluster.broker.borrow_mut().paused_until = now + 60_000;
    // A second for the hold, and one for a barrier.
    let (status, body) = scene.cluster.await_response(asked, 2_500);
    assert_eq!((status, ids(&body)), (200, vec![1]), "{body}");
}

#[test]
fn a_read_does_not_wait_for_the_end_of_its_session_while_redis_does_not_respond() {
    let mut scene = Scene::new(&[0]);
    let now = scene.cluster.now;
    scene.cluster.broker.borrow_mut().paused_until = now + 60_000;
    let credentials = scene.credentials.clone();
    let params: Vec<_> = credentials.iter().map(|(key, value)| (*key, value.as_str())).collect();
    scene.cluster.ask(0, "/goodbye", &params);
    scene.cluster.pass(1);
    let asked = scene.read(0, 2, &[]);
    let (status, body) = scene.cluster.await_response(asked, 2_500);
    assert_eq!((status, body["error"].as_str()), (503, Some("over_capacity")), "{body}");
}

/// It waits for a barrier in vain before its record does.
#[test]
fn a_write_to_a_room_waits_for_five_seconds_in_all_while_redis_does_not_respond() {
    let mut scene = Scene::new(&[0]);
    let now = scene.cluster.now;
    scene.cluster.broker.borrow_mut().paused_until = now + 60_000;
    let room = Pair::new(PairKind::Room, *b"ABCDEFGHIJKLMNOPQRSTUV").given;
    let asked = scene.cluster.ask(0, "/write", &[("channel", &room), ("message", "howdy")]);
    scene.cluster.pass(4_900);
    assert!(scene.cluster.take(asked).is_none());
    let (status, body) = scene.cluster.await_response(asked, 200);
    assert_eq!((status, body["error"].as_str()), (503, Some("over_capacity")), "{body}");
}

/// The end of the log that it was told before is an old one by then.
#[test]
fn a_node_that_was_stopped_answers_from_what_it_has_missed() {
    let mut scene = Scene::new(&[20]);
    let asked = scene.cluster.ask(1, "/members", &[("channel", "c")]);
    scene.cluster.pass(25);
    scene.cluster.nodes[1].paused_until = scene.cluster.now + 2_200;
    // What Redis has sent before is read together with the end of the log.
    scene.cluster.pass(1_000);
    let joined = scene.cluster.ask(0, "/introduce", &[("channel", "c"), ("message", "Ann")]);
    scene.cluster.pass(800);
    assert!(scene.cluster.take(joined).is_some_and(|(status, _)| status == 200));
    let (status, body) = scene.cluster.await_response(asked, 2_000);
    let members = body["members"].as_array().expect("members");
    assert_eq!((status, members.len()), (200, 2), "{body}");
}

/// As many barriers are under way as may be, so that the last read has to wait for its own.
#[test]
fn a_read_waits_for_its_barrier_for_as_long_as_redis_responds() {
    for phase in 0..20 {
        let mut scene = Scene::new(&[300]);
        scene.cluster.pass(31 * phase);
        let mut asked = Vec::new();
        for wait_ms in [1, 1, 1, 100, 0] {
            asked.push(scene.read(0, 1, &[("timeout", "0")]));
            scene.cluster.pass(wait_ms);
        }
        for asked in asked {
            let (status, body) = scene.cluster.await_response(asked, 3_000);
            assert_eq!((status, ids(&body)), (200, vec![1]), "{body}");
            let node = &scene.cluster.nodes[0];
            assert!(!node.service().hub().0.is_behind(), "phase {phase}: answered without one");
        }
    }
}

/// Each of the forms of a time of zero is that of a read that is answered at once. In some rounds,
/// the other node gets the record later than the reply to the write comes.
#[test]
fn a_read_that_may_not_wait_sees_what_was_acknowledged() {
    let mut scene = Scene::new(&[0, 10, 50]);
    for round in 0..20 {
        for timeout in ["0", "00", "-0"] {
            let id = scene.write();
            let from_id = id.to_string();
            let params = [("channel", "c"), ("from_id", &*from_id), ("timeout", timeout)];
            let asked = scene.cluster.ask(1, "/read", &params);
            let (status, body) = scene.cluster.await_response(asked, 900);
            assert_eq!((status, ids(&body)), (200, vec![id]), "round {round}, {timeout}: {body}");
        }
    }
}

/// A release waits for the record before, and then takes half a round trip.
#[test]
fn a_silent_session_ends_where_a_round_trip_to_redis_takes_nearly_two_seconds() {
    for delay_ms in [500, 800, 900, 990] {
        let mut cluster = Cluster::start(1, &[delay_ms], None);
        cluster.pass(2 * JOIN_MS);
        let asked = cluster.ask(0, "/introduce", &[("channel", "c"), ("message", "Josh")]);
        assert_eq!(cluster.await_response(asked, 6_000).0, 200);
        let has_session = |cluster: &Cluster| cluster.nodes[0].service().hub().0.has_session(1);
        assert!(has_session(&cluster));
        // The timeout of 60 s, and some round trips.
        cluster.pass(70_000);
        assert!(!has_session(&cluster), "{delay_ms}");
    }
}
