use super::*;
use crate::hub::{
    Applied, Auth, ChannelName, Config, Introduced, Millis, Mode, ProposalCursor, ReadRequest,
    ReadResult, Since, TOKEN_BYTES,
};

const TIMEOUT_MS: u64 = 5_000;

fn at(ms: u64) -> Now {
    Now { mono: Millis(ms), unix_ms: ms }
}

fn key(name: &str) -> ChannelKey<'_> {
    ChannelName::parse(name).unwrap().for_writing().unwrap()
}

/// A hub with a log that is applied as a test says.
struct Logged {
    hub: Hub,
    position: u64,
}

impl Logged {
    fn new() -> Self {
        let mut hub = Hub::new(Config::default());
        hub.begin_logging();
        Self { hub, position: 0 }
    }

    fn take(&mut self) -> Proposals {
        let mut proposals = Proposals::default();
        self.hub.swap_proposals(&mut proposals);
        proposals
    }

    fn apply(&mut self, now: Now, proposals: &Proposals) -> Vec<Result<Applied, Error>> {
        let mut at = ProposalCursor::default();
        let mut results = Vec::new();
        while let Some(proposal) = proposals.next(&mut at).unwrap() {
            self.position += 1;
            let result = self.hub.apply_proposal(now, now.mono, self.position, &proposal);
            results.push(result);
        }
        results
    }

    fn refuse(&mut self, now: Now, proposals: &Proposals) {
        let mut at = ProposalCursor::default();
        while let Some(proposal) = proposals.next(&mut at).unwrap() {
            self.hub.refuse(now, &proposal.command);
        }
    }

    fn introduce(&mut self, now: Now) -> Introduced {
        let introducer = Introducer::New(Auth::new([b'A'; TOKEN_BYTES]));
        self.hub.propose_introduction(now, &key("c"), "Josh", &introducer, None).unwrap();
        let proposals = self.take();
        let Some(Ok(Applied::Introduced(josh))) = self.apply(now, &proposals).pop() else {
            panic!("it was introduced");
        };
        self.hub.deliver(now, |_| {});
        josh
    }

    fn read(&mut self, now: Now, credentials: Credentials<'_>) -> Result<(), Error> {
        let targets = [(key("c"), Since::Id(1))];
        let request = ReadRequest {
            targets: &targets,
            epoch: None,
            credentials: Some(credentials),
            grace_ms: None,
            mode: Mode::Immediate,
            token: 1,
        };
        self.hub.read(now, &request).map(|result| assert!(matches!(result, ReadResult::Ready(_))))
    }
}

fn shown(josh: &Introduced) -> Credentials<'_> {
    Credentials { session: josh.session, auth: josh.auth.reveal() }
}

#[test]
fn a_call_while_the_end_of_its_session_waits_for_the_log_does_not_succeed() {
    let mut logged = Logged::new();
    let josh = logged.introduce(at(0));
    logged.hub.expire(at(TIMEOUT_MS));
    let end = logged.take();
    assert_eq!(end.count(), 1);
    assert_eq!(logged.read(at(TIMEOUT_MS), shown(&josh)), Err(Error::SessionEnding(1)));
    let credentials = Some(shown(&josh));
    logged.hub.propose_write(at(TIMEOUT_MS), &key("c"), "late", credentials).unwrap();
    let write = logged.take();
    assert!(matches!(logged.apply(at(TIMEOUT_MS), &end)[..], [Ok(Applied::Gone)]));
    let results = logged.apply(at(TIMEOUT_MS), &write);
    assert!(matches!(results[..], [Err(Error::SessionEnded)]));
    assert_eq!(logged.read(at(TIMEOUT_MS), shown(&josh)), Err(Error::SessionEnded));
}

/// A channel may be dropped while a command waits, if the state is loaded again. Another one
/// may have its index then.
#[test]
fn a_write_goes_to_the_channel_of_its_name_wherever_that_is() {
    for (hint, is_known) in [(0, true), (1, true), (9, true), (0, false), (1, false)] {
        let mut logged = Logged::new();
        let names: &[_] = if is_known { &["other", "c"] } else { &["other", "third"] };
        for name in names {
            logged.hub.propose_write(at(0), &key(name), "howdy", None).unwrap();
        }
        let proposals = logged.take();
        logged.apply(at(0), &proposals);
        let mut moved = Proposals::default();
        let hint = WriteHint { channel: hint, is_plain: true };
        moved.push_write(hint, "c", None, false, "howdy");
        let result = logged.apply(at(0), &moved).pop();
        let expected = if is_known { 2 } else { 1 };
        let Some(Ok(Applied::Written(id))) = result else { panic!("it was written") };
        assert_eq!(id, expected, "{hint:?}, known: {is_known}");
        assert_eq!(logged.hub.gauges().channels, 2 + usize::from(!is_known));
    }
}

#[test]
fn a_session_whose_end_the_log_refuses_lives_on() {
    for is_goodbye in [false, true] {
        let mut logged = Logged::new();
        let josh = logged.introduce(at(0));
        if is_goodbye {
            logged.hub.propose_goodbye(at(TIMEOUT_MS), shown(&josh), None, None).unwrap();
        } else {
            logged.hub.expire(at(TIMEOUT_MS));
        }
        let end = logged.take();
        logged.hub.expire(at(TIMEOUT_MS + 10));
        logged.refuse(at(TIMEOUT_MS + 10), &end);
        logged.hub.expire(at(2 * TIMEOUT_MS + 9));
        assert_eq!(logged.hub.proposed(), 0, "goodbye: {is_goodbye}");
        assert_eq!(logged.read(at(2 * TIMEOUT_MS + 9), shown(&josh)), Ok(()));
        logged.hub.expire(at(3 * TIMEOUT_MS + 9));
        assert_eq!(logged.hub.proposed(), 1, "goodbye: {is_goodbye}");
    }
}

/// The timeout begins with the response, and the response waits for the log.
#[test]
fn a_session_does_not_time_out_while_its_call_waits_for_the_log() {
    const ANSWERED_MS: u64 = TIMEOUT_MS + 700;
    for is_refused in [false, true] {
        let mut logged = Logged::new();
        let josh = logged.introduce(at(0));
        let credentials = Some(shown(&josh));
        logged.hub.propose_write(at(0), &key("c"), "howdy", credentials).unwrap();
        let write = logged.take();
        logged.hub.expire(at(ANSWERED_MS));
        assert_eq!(logged.hub.proposed(), 0, "refused: {is_refused}");
        if is_refused {
            logged.refuse(at(ANSWERED_MS), &write);
        } else {
            assert!(logged.apply(at(ANSWERED_MS), &write)[0].is_ok());
            logged.hub.deliver(at(ANSWERED_MS), |_| {});
        }
        logged.hub.expire(at(ANSWERED_MS + TIMEOUT_MS - 1));
        assert_eq!(logged.hub.proposed(), 0, "refused: {is_refused}");
        logged.hub.expire(at(ANSWERED_MS + TIMEOUT_MS));
        assert_eq!(logged.hub.proposed(), 1, "refused: {is_refused}");
    }
}

#[test]
fn the_time_in_which_the_log_does_not_respond_counts_for_no_timeout() {
    const BACK_MS: u64 = TIMEOUT_MS - 1;
    let mut logged = Logged::new();
    logged.introduce(at(0));
    logged.hub.set_log_health(Millis(1_000), LogHealth::Slow);
    logged.hub.set_log_health(Millis(2_000), LogHealth::Stalled);
    logged.hub.set_log_health(Millis(BACK_MS), LogHealth::Good);
    logged.hub.expire(at(BACK_MS + TIMEOUT_MS - 1));
    assert_eq!(logged.hub.proposed(), 0);
    logged.hub.set_log_health(Millis(BACK_MS + TIMEOUT_MS - 1), LogHealth::Good);
    logged.hub.expire(at(BACK_MS + TIMEOUT_MS));
    assert_eq!(logged.hub.proposed(), 1);
}

#[test]
fn a_new_numbering_is_told_to_the_readers_that_know_ids() {
    let mut logged = Logged::new();
    let introducer = Introducer::New(Auth::new([b'A'; TOKEN_BYTES]));
    logged.hub.propose_introduction(at(0), &key("c"), "Josh", &introducer, None).unwrap();
    let proposals = logged.take();
    logged.apply(at(0), &proposals);
    logged.hub.deliver(at(0), |_| {});
    let mut token = 0;
    let mut wait = |name: &'static str, since, mode| {
        token += 1;
        let (targets, epoch) = ([(key(name), since)], None);
        let (credentials, grace_ms) = (None, None);
        let request = ReadRequest { targets: &targets, epoch, credentials, grace_ms, mode, token };
        assert!(!matches!(logged.hub.read(at(0), &request).unwrap(), ReadResult::Ready(_)));
    };
    wait("c", Since::Id(2), Mode::LongPoll);
    wait("c", Since::Now, Mode::LongPoll);
    wait("d", Since::All, Mode::LongPoll);
    wait("c", Since::Id(2), Mode::Stream);
    wait("c", Since::Now, Mode::Stream);
    wait("d", Since::All, Mode::Stream);
    let deliver = |logged: &mut Logged| {
        let mut replies = Vec::new();
        logged.hub.deliver(at(0), |wake| {
            let reset = wake.reply.slices()[0].reset();
            replies.push((wake.token, reset, wake.reply.slices()[0].messages().count()));
        });
        replies.sort_unstable();
        replies
    };
    let position = logged.position + 1;
    let begin = |epoch: &[u8; 8]| Command::Begin { epoch: *epoch, watermark_hash_key: None };
    let result = logged.hub.apply(at(0), Millis(0), position, &begin(b"newepoch"));
    assert!(matches!(result, Ok(Applied::Nothing)));
    // The first reply of a stream from 0 had nothing, but told that it had begun.
    let told = [(1, true, 1), (4, true, 1), (5, true, 1), (6, true, 0)];
    assert_eq!(deliver(&mut logged), told);
    logged.hub.propose_write(at(0), &key("c"), "next", None).unwrap();
    let proposals = logged.take();
    logged.position += 1;
    logged.apply(at(0), &proposals);
    assert_eq!(deliver(&mut logged), [(2, false, 1), (4, false, 1), (5, false, 1)]);
    // The same numbering again is no other one.
    let position = logged.position + 1;
    assert!(logged.hub.apply(at(0), Millis(0), position, &begin(b"newepoch")).is_ok());
    assert_eq!(deliver(&mut logged), []);
}
