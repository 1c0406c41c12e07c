//! The faults that the ledger must find, and the cases that it must accept.

use serde_json::{Value, json};

use crate::fault::Checked;
use crate::ledger::{Clock, Ledger, Rules};
use crate::message::{Kind, Message, Reason};
use crate::reader::{Reader, Since, Subscription};
use crate::session::{Session, Verdict};
use crate::sse::Event;
use crate::text::Text;

const RULES: Rules = Rules {
    timeout_ms: 2_000,
    grace_ms: 0,
    history: Some(32),
    has_own_texts: true,
    knows_ends: true,
    has_steady_clock: true,
};

fn text(seq: u32, from: u64) -> Text {
    Text { sender: 1, seq, channel: 0, from, filler: 3 }
}

fn see(
    ledger: &mut Ledger,
    (id, time): (u64, u64),
    kind: Kind,
    from: u64,
    text: Option<Text>,
) -> Checked {
    let text = text.map(|text| text.write());
    let from = Some(from).filter(|from| *from > 0);
    let is_owner = false;
    ledger.see(0, &Message { id, kind, time, from, is_owner, text: text.as_deref() })
}

fn write(ledger: &mut Ledger, id: u64, seq: u32) -> Checked {
    see(ledger, (id, 0), Kind::Message, 0, Some(text(seq, 0)))
}

fn goodbye(ledger: &mut Ledger, id: u64, reason: Reason, time: u64) -> Checked {
    see(ledger, (id, time), Kind::Goodbye(reason), 1, None)
}

/// Session 1 is introduced under id 1 at 1,000, and was last alive at 1,500.
fn introduced() -> Ledger {
    let mut ledger = Ledger::new(1, RULES);
    see(&mut ledger, (1, 1_000), Kind::Introduction, 1, Some(text(1, 0))).unwrap();
    let text = text(1, 0).write();
    ledger.introduced((1, true), 1_000, (0, 1), &text, Verdict::IfSlow).unwrap();
    its(&mut ledger).lived(1_500);
    assert!(ledger.owed().is_none());
    ledger
}

/// Session 1, to say what its clients do.
fn its(ledger: &mut Ledger) -> &mut Session {
    ledger.sessions.get_mut(&1).unwrap()
}

#[test]
fn a_crash_loses_nothing_that_was_acknowledged() {
    // A time-out needs the whole timeout from the start on.
    for (time, is_right) in [(3_900, true), (4_000, false), (5_900, false), (6_000, true)] {
        let mut ledger = introduced();
        its(&mut ledger).fall_silent();
        ledger.recovered(4_000);
        let seen = goodbye(&mut ledger, 2, Reason::Timeout, time);
        assert_eq!(seen.is_ok(), is_right, "{time}: {seen:?}");
    }
    // A goodbye to all channels whose response was lost may have been said or not.
    for (is_answered, is_right) in [(true, false), (false, true)] {
        let mut ledger = introduced();
        its(&mut ledger).leave();
        if is_answered {
            its(&mut ledger).left();
        }
        its(&mut ledger).lose_track();
        ledger.recovered(2_000);
        goodbye(&mut ledger, 2, Reason::Timeout, 4_000).unwrap();
        assert_eq!(ledger.possible_violations.is_empty(), is_right, "answered: {is_answered}");
    }
    // The same holds for a goodbye to one channel.
    for (is_answered, is_right) in [(true, false), (false, true)] {
        let mut ledger = introduced();
        its(&mut ledger).leaves.push(0);
        if is_answered {
            its(&mut ledger).left_channel(0);
        }
        its(&mut ledger).fall_silent();
        let seen = goodbye(&mut ledger, 2, Reason::Timeout, 4_000);
        assert_eq!(seen.is_ok(), is_right, "answered: {is_answered}");
    }
    // A read that closes ends the session where a goodbye was lost, and nowhere else.
    for (calls, answers, is_right) in [(0, 0, false), (1, 1, false), (1, 0, true)] {
        let mut ledger = introduced();
        (0..calls).for_each(|_| its(&mut ledger).leaves.push(0));
        (0..answers).for_each(|_| its(&mut ledger).left_channel(0));
        its(&mut ledger).depart();
        let seen = goodbye(&mut ledger, 2, Reason::Closed, 1_100);
        assert_eq!(seen.is_ok(), is_right, "{calls} calls, {answers} answers: {seen:?}");
    }
    // Numbers of connections continue.
    let mut ledger = introduced();
    see(&mut ledger, (2, 1_900), Kind::Introduction, 5, Some(text(2, 0))).unwrap();
    ledger.recovered(2_000);
    let words = text(3, 0).write();
    let mut introduce =
        |number| ledger.introduced((number, true), 2_000, (0, 3), &words, Verdict::IfSlow);
    assert!(introduce(4).is_err(), "a number of before the crash");
    introduce(6).unwrap();
}

#[test]
fn a_text_comes_once_in_order_and_under_the_id_that_its_response_named() {
    let mut ledger = Ledger::new(1, RULES);
    let answered = |ledger: &mut Ledger, id, seq| {
        ledger.answered((0, id), Kind::Message, None, &text(seq, 0).write())
    };
    answered(&mut ledger, 2, 2).unwrap();
    assert!(answered(&mut ledger, 2, 2).is_err(), "given twice");
    write(&mut ledger, 1, 1).unwrap();
    assert!(ledger.owed().is_some(), "id 2 was not seen");
    write(&mut ledger, 2, 2).unwrap();
    assert!(ledger.owed().is_none());
    write(&mut ledger, 2, 2).unwrap();
    assert!(write(&mut ledger, 2, 3).is_err(), "another reader sees another text");
    assert!(write(&mut ledger, 3, 2).is_err(), "twice");
    assert!(answered(&mut ledger, 1, 9).is_err(), "another text is there");
    answered(&mut ledger, 1, 1).unwrap();
    assert!(answered(&mut ledger, 1, 1).is_err(), "given twice");
    assert!(write(&mut ledger, 200_000, 5).is_err(), "far ahead");
}

#[test]
fn messages_that_come_out_of_order_are_judged_in_their_order() {
    let mut ledger = Ledger::new(1, RULES);
    write(&mut ledger, 2, 1).unwrap();
    assert!(write(&mut ledger, 1, 2).is_err(), "text 2 has the lower id");
}

#[test]
fn a_refused_text_and_one_from_another_session_or_channel_are_found() {
    let mut ledger = Ledger::new(1, RULES);
    ledger.forbid(text(1, 0), "its request was refused").unwrap();
    assert!(write(&mut ledger, 1, 1).is_err());
    ledger.permit(text(1, 0));
    write(&mut ledger, 1, 1).unwrap();
    assert!(ledger.forbid(text(1, 0), "its request was refused").is_err(), "it was seen");
    assert!(see(&mut ledger, (2, 0), Kind::Message, 7, Some(text(2, 8))).is_err());
    let elsewhere = Text { channel: 5, ..text(2, 0) };
    assert!(see(&mut ledger, (2, 0), Kind::Message, 0, Some(elsewhere)).is_err());
    assert!(see(&mut ledger, (2, 0), Kind::Message, 0, None).is_err(), "no text");
}

type Plan = fn(&mut Ledger);

const LEAVE: Plan = |ledger| its(ledger).leave();
const CLOSE: Plan = |ledger| its(ledger).close(1_600, vec![(0, 2)]);
const SILENCE: Plan = |ledger| its(ledger).fall_silent();
const CLOG: Plan = |ledger| its(ledger).clog();
const LIVE: Plan = |_| {};
const UPGRADE: Plan = Ledger::unsettle_closings;
const CLOSE_AND_UPGRADE: Plan = |ledger| {
    CLOSE(ledger);
    UPGRADE(ledger);
};

#[test]
fn a_goodbye_is_right_once_and_only_as_a_client_meant_it() {
    let cases = [
        ("leave", LEAVE, Reason::Left, 1_500, true),
        ("leave", LEAVE, Reason::Closed, 1_600, false),
        ("close", CLOSE, Reason::Closed, 1_600, true),
        ("silence", SILENCE, Reason::Timeout, 3_500, true),
        ("silence", SILENCE, Reason::Timeout, 3_000, false),
        ("silence", SILENCE, Reason::Closed, 3_600, false),
        ("clog", CLOG, Reason::Closed, 1_600, true),
        ("live", LIVE, Reason::Left, 1_600, false),
        ("live", LIVE, Reason::Closed, 1_600, false),
        ("live", LIVE, Reason::Timeout, 3_000, false),
        ("live during an upgrade", UPGRADE, Reason::Closed, 1_600, false),
        // A closing during an upgrade may come as silence, but not before its time.
        ("close during an upgrade", CLOSE_AND_UPGRADE, Reason::Closed, 1_600, true),
        ("close during an upgrade", CLOSE_AND_UPGRADE, Reason::Timeout, 3_500, true),
        ("close during an upgrade", CLOSE_AND_UPGRADE, Reason::Timeout, 3_000, false),
        ("close during an upgrade", CLOSE_AND_UPGRADE, Reason::Left, 1_600, false),
    ];
    for (way, plan, reason, time, is_right) in cases {
        let (mut ledger, case) = (introduced(), format!("{way}: {reason:?} at {time}"));
        plan(&mut ledger);
        assert_eq!(ledger.owed().is_none(), way.starts_with("live"), "{case}: owed before");
        assert_eq!(goodbye(&mut ledger, 2, reason, time).is_ok(), is_right, "{case}");
        assert!(ledger.possible_violations.is_empty(), "{case}");
        if is_right {
            assert!(ledger.owed().is_none(), "{case}: owed after");
            assert!(goodbye(&mut ledger, 3, reason, time).is_err(), "{case}, a second time");
            let again = see(&mut ledger, (3, time), Kind::Introduction, 1, Some(text(2, 1)));
            assert!(again.is_err(), "{case}: introduced after its end");
        }
    }
    // That may come of a slow machine.
    let mut ledger = introduced();
    goodbye(&mut ledger, 2, Reason::Timeout, 3_600).unwrap();
    assert_eq!(ledger.possible_violations.len(), 1);
}

#[test]
fn exact_times_are_held_against_the_timeout_and_the_grace() {
    for (reason, at_ms, is_right) in [
        (Reason::Timeout, 3_499, false),
        (Reason::Timeout, 3_500, true),
        (Reason::Closed, 1_899, false),
        (Reason::Closed, 1_900, true),
    ] {
        let mut ledger = introduced();
        ledger.rules.grace_ms = 300;
        let session = its(&mut ledger);
        session.fall_silent();
        session.closings.push(1_600);
        ledger.clock = Clock::Between(0, at_ms);
        assert_eq!(goodbye(&mut ledger, 2, reason, 77).is_ok(), is_right, "{reason:?} {at_ms}");
    }
}

#[test]
fn a_session_leaves_one_channel_once_for_each_call() {
    let mut ledger = introduced();
    its(&mut ledger).leaves.push(0);
    goodbye(&mut ledger, 2, Reason::Left, 1_600).unwrap();
    see(&mut ledger, (3, 1_700), Kind::Introduction, 1, Some(text(2, 1))).unwrap();
    assert!(goodbye(&mut ledger, 4, Reason::Left, 1_800).is_err());
}

#[test]
fn silence_after_a_closing_is_cleared_only_by_a_message_that_crossed_it() {
    for (came_at, is_cleared) in [(1_600, true), (1_700, false)] {
        let mut ledger = introduced();
        CLOSE(&mut ledger);
        see(&mut ledger, (2, came_at), Kind::Message, 0, Some(text(2, 0))).unwrap();
        goodbye(&mut ledger, 3, Reason::Timeout, 3_700).unwrap();
        let violation = ledger.possible_violations.pop().unwrap();
        assert_eq!(ledger.is_crossed(&violation), is_cleared);
    }
}

#[test]
fn after_a_gap_members_are_unknown_and_a_second_goodbye_is_still_found() {
    let mut ledger = introduced();
    its(&mut ledger).lose_track();
    ledger.skip_to(0, 3).unwrap();
    assert!(ledger.channels[0].has_gaps && ledger.unseen_ids == 1 && ledger.owed().is_none());
    goodbye(&mut ledger, 3, Reason::Closed, 1_600).unwrap();
    assert!(goodbye(&mut ledger, 4, Reason::Closed, 1_600).is_err());
    ledger.forget_members(0, false);
    assert!(!ledger.channels[0].has_gaps);
    assert!(see(&mut ledger, (5, 1_600), Kind::Goodbye(Reason::Left), 9, None).is_err());
}

#[test]
fn a_session_ends_everywhere_for_one_reason_at_one_time() {
    for (reason, time, is_right) in [
        (Reason::Closed, 1_600, true),
        (Reason::Closed, 1_601, false),
        (Reason::Left, 1_600, false),
    ] {
        let mut ledger = introduced();
        let channel = ledger.add_channel();
        let text = Text { channel: 1, ..text(2, 1) }.write();
        let (kind, from) = (Kind::Introduction, Some(1));
        let arrival =
            Message { id: 1, kind, time: 1_100, from, is_owner: false, text: Some(&text) };
        ledger.see(channel, &arrival).unwrap();
        its(&mut ledger).lose_track();
        goodbye(&mut ledger, 2, Reason::Closed, 1_600).unwrap();
        let end =
            Message { id: 2, kind: Kind::Goodbye(reason), time, from, is_owner: false, text: None };
        assert_eq!(ledger.see(channel, &end).is_ok(), is_right, "{reason:?} at {time}");
    }
}

/// Answer with messages of these ids, numbered as texts too.
fn answer(ids: std::ops::Range<u64>, kind: &str) -> Value {
    let next_id = ids.end;
    let message = |id: u64| {
        let text = text(id as u32, 0).write();
        json!({"id": id, "type": kind, "time": 1, "from": id, "message": text})
    };
    let messages: Vec<_> = ids.map(message).collect();
    json!({"messages": messages, "next_id": next_id, "epoch": "e"})
}

fn reader(since: Since) -> Reader {
    Reader::new(vec![Subscription::new(0, "c", since)])
}

#[test]
fn an_answer_contains_all_that_is_retained() {
    let take = |since, answer: Value| {
        Ledger::new(1, RULES).take_answer(&mut reader(since), &answer).map(|taken| taken.messages)
    };
    let all = || answer(1..5, "introduction");
    assert_eq!(take(Since::All, all()).unwrap(), 4);
    assert_eq!(take(Since::Last(2), answer(3..5, "introduction")).unwrap(), 2);
    assert!(take(Since::All, answer(3..5, "introduction")).is_err());
    assert!(take(Since::Last(3), answer(3..5, "introduction")).is_err());
    let mut missed = answer(3..36, "introduction");
    missed["missed"] = true.into();
    take(Since::Id(2), missed).unwrap();
    let mut missed = all();
    missed["missed"] = true.into();
    assert!(take(Since::Id(0), missed).is_err(), "history is longer");
    let mut ledger = Ledger::new(1, RULES);
    ledger.channels[0].is_large = true;
    ledger.take_answer(&mut reader(Since::All), &answer(3..5, "introduction")).unwrap();
}

#[test]
fn a_reader_from_the_beginning_learns_of_all_members_and_no_others() {
    let mut ledger = introduced();
    let mut answer = answer(2..3, "message");
    answer["messages"][0].as_object_mut().unwrap().remove("from");
    let wrong = ledger.take_answer(&mut reader(Since::Last(1)), &answer);
    wrong.expect("only a read from the beginning is judged");
    ledger.rules.history = None;
    assert!(ledger.take_answer(&mut reader(Since::All), &answer).is_err(), "session 1 is there");
    let introduction = json!({"id": 1, "type": "introduction", "time": 1_000, "from": 1,
        "message": text(1, 0).write()});
    answer["messages"].as_array_mut().unwrap().insert(0, introduction);
    ledger.take_answer(&mut reader(Since::All), &answer).unwrap();
}

#[test]
fn the_epoch_changes_only_with_the_memory_of_the_server() {
    let mut ledger = Ledger::new(1, RULES);
    let mut its = reader(Since::All);
    ledger.take_answer(&mut its, &answer(1..3, "introduction")).unwrap();
    let mut other = answer(1..2, "introduction");
    other["epoch"] = "f".into();
    assert!(ledger.take_answer(&mut its.clone(), &other).is_err());
    ledger.forget_all();
    assert!(ledger.take_answer(&mut its.clone(), &answer(3..3, "")).is_err(), "one of the past");
    assert!(ledger.take_answer(&mut its.clone(), &other).is_err(), "no reset");
    other["reset"] = true.into();
    assert_eq!(ledger.take_answer(&mut its, &other).unwrap().resets, 1);
}

#[test]
fn events_belong_to_a_channel_of_their_stream_and_name_its_epoch() {
    let event = |text: &str| Event::parse(text.as_bytes()).unwrap();
    let mut ledger = Ledger::new(2, Rules { has_own_texts: false, ..RULES });
    let subscribe = |name| Subscription::new(usize::from(name == "b"), name, Since::Id(1));
    let mut both = Reader::new(vec![subscribe("a"), subscribe("b")]);
    let data = |channel: &str, id: u64| {
        let message = json!({"id": id, "type": "message", "time": 1, "message": "m"});
        let mut message = message.as_object().unwrap().clone();
        message.extend((!channel.is_empty()).then(|| ("channel".to_owned(), channel.into())));
        format!("data: {}\n\n", Value::Object(message))
    };
    let ready = "retry: 1000\nid: e:1,1\nevent: ready\ndata: {}\n\n";
    ledger.take_event(&mut both, &event(ready)).unwrap();
    let taken = ledger.take_event(&mut both, &event(&format!("id: e:1,2\n{}", data("b", 1))));
    assert_eq!(taken.unwrap().messages, 1);
    let wrong = [
        format!("id: e:2,2\n{}", data("", 1)),
        format!("id: e:2,2\n{}", data("c", 1)),
        format!("id: e:2\n{}", data("a", 1)),
        format!("id: f:2,2\n{}", data("a", 1)),
        format!("event: news\nid: e:2,2\n{}", data("a", 1)),
        "retry: 5\nid: e:1,2\nevent: ready\ndata: {}\n\n".to_owned(),
        ready.to_owned(),
        "event: missed\nid: e:1,2\ndata: {\"channel\":\"a\"}\n\n".to_owned(),
        data("a", 1),
    ];
    for text in wrong {
        assert!(ledger.take_event(&mut both.clone(), &event(&text)).is_err(), "{text}");
    }
    both.observes = true;
    ledger.take_event(&mut both, &event("event: missed\ndata: {\"channel\":\"a\"}\n\n")).unwrap();
    ledger.take_event(&mut both, &event(&format!("id: e:4,2\n{}", data("a", 3)))).unwrap();
    assert!(ledger.channels[0].has_gaps && !ledger.channels[1].has_gaps && ledger.unseen_ids == 2);
}

#[test]
fn a_message_loses_its_text_only_if_a_client_removed_it() {
    let mut ledger = introduced();
    write(&mut ledger, 2, 2).unwrap();
    assert!(see(&mut ledger, (2, 0), Kind::Removed, 0, None).is_err(), "no client removed it");
    ledger.may_remove(0, 2);
    see(&mut ledger, (2, 0), Kind::Removed, 0, None).unwrap();
    assert!(see(&mut ledger, (2, 9), Kind::Removed, 0, None).is_err(), "another time");
    assert!(see(&mut ledger, (2, 0), Kind::Removed, 7, None).is_err(), "another sender");
    assert!(see(&mut ledger, (3, 0), Kind::Removal(4), 0, None).is_err(), "it comes later");
    let mut ledger = introduced();
    write(&mut ledger, 2, 2).unwrap();
    see(&mut ledger, (3, 0), Kind::Removal(2), 0, None).unwrap();
}

#[test]
fn a_message_may_be_removed_before_its_response_comes() {
    let answer =
        |ledger: &mut Ledger| ledger.answered((0, 2), Kind::Message, None, &text(2, 0).write());
    let mut ledger = introduced();
    ledger.may_remove(0, 2);
    see(&mut ledger, (2, 0), Kind::Removed, 0, None).unwrap();
    answer(&mut ledger).unwrap();
    assert!(answer(&mut ledger).is_err(), "given twice");
    let mut ledger = introduced();
    ledger.may_remove(0, 2);
    see(&mut ledger, (2, 0), Kind::Removed, 7, None).unwrap();
    assert!(answer(&mut ledger).is_err(), "of another sender");
}

#[test]
fn a_kick_ends_no_session_and_a_client_has_to_mean_it() {
    let mut ledger = introduced();
    assert!(goodbye(&mut ledger, 2, Reason::Removed, 1_600).is_err());
    let mut ledger = introduced();
    ledger.may_kick(0, 1);
    goodbye(&mut ledger, 2, Reason::Removed, 1_600).unwrap();
    see(&mut ledger, (3, 1_700), Kind::Introduction, 1, Some(text(2, 1))).unwrap();
}
