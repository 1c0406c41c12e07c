//! What the ledger must find, and what it must let pass.

use super::connection::{ExpectedEnd, Reason};
use super::ledger::{Checked, Kind, Ledger, Message};
use super::said::Parsed;

const ROOM: u32 = 0;
const TIMEOUT_MS: u64 = 2_000;

fn said(seq: u32, from: u64) -> Parsed {
    Parsed { voice: 1, seq, room: ROOM, from, filler: 3 }
}

fn sight(
    ledger: &mut Ledger,
    id: u64,
    kind: Kind,
    time: u64,
    from: u64,
    said: Option<Parsed>,
) -> Checked {
    let text = said.map(|said| said.text());
    let from = Some(from).filter(|from| *from > 0);
    ledger.sight(ROOM, &Message { id, kind, time, from, text: text.as_deref() })
}

fn write(ledger: &mut Ledger, id: u64, seq: u32) -> Checked {
    sight(ledger, id, Kind::Message, 0, 0, Some(said(seq, 0)))
}

/// Connection 1 is introduced under id 1 at 1,000, and as its user knows.
fn introduced() -> Ledger {
    let mut ledger = Ledger::new(1, 32, TIMEOUT_MS);
    sight(&mut ledger, 1, Kind::Introduction, 1_000, 1, Some(said(1, 0))).unwrap();
    ledger.introduced(1, true, 1_000, 1, said(1, 0)).unwrap();
    assert!(ledger.owed().is_none());
    ledger
}

fn goodbye(ledger: &mut Ledger, id: u64, reason: Reason, time: u64) -> Checked {
    sight(ledger, id, Kind::Goodbye(reason), time, 1, None)
}

#[test]
fn a_word_comes_once_in_order_and_under_the_id_it_was_given() {
    let mut ledger = Ledger::new(1, 32, TIMEOUT_MS);
    ledger.answered(2, Kind::Message, said(2, 0)).unwrap();
    write(&mut ledger, 1, 1).unwrap();
    assert!(ledger.owed().is_some(), "id 2 was not seen");
    write(&mut ledger, 2, 2).unwrap();
    assert!(ledger.owed().is_none());
    write(&mut ledger, 2, 2).unwrap();
    assert!(write(&mut ledger, 2, 3).is_err(), "another reader sees another word");
    assert!(write(&mut ledger, 3, 2).is_err(), "twice");
    assert!(ledger.answered(1, Kind::Message, said(9, 0)).is_err(), "another word is there");
}

#[test]
fn what_comes_out_of_turn_is_judged_in_its_order() {
    let mut ledger = Ledger::new(1, 32, TIMEOUT_MS);
    write(&mut ledger, 2, 1).unwrap();
    assert!(write(&mut ledger, 1, 2).is_err(), "word 2 has the lower id");
}

#[test]
fn a_refused_word_and_one_from_another_are_found() {
    let mut ledger = Ledger::new(1, 32, TIMEOUT_MS);
    ledger.refused(said(1, 0));
    assert!(write(&mut ledger, 1, 1).is_err());
    assert!(sight(&mut ledger, 1, Kind::Message, 0, 7, Some(said(2, 8))).is_err());
    assert!(
        sight(&mut ledger, 1, Kind::Message, 0, 0, Some(Parsed { room: 5, ..said(2, 0) })).is_err()
    );
}

#[test]
fn one_goodbye_is_right_for_each_way_to_go() {
    let closed = |at_ms| ExpectedEnd::Closed { at_ms, cursors: vec![(ROOM, 2)], alive_ms: 1_500 };
    let ways = [
        (ExpectedEnd::Left, Reason::Left, 1_500),
        (closed(1_600), Reason::Closed, 1_600),
        (ExpectedEnd::Silent { alive_ms: 1_500 }, Reason::Timeout, 3_500),
        (ExpectedEnd::Clogged, Reason::Closed, 1_600),
    ];
    for (fate, reason, time) in ways {
        let mut ledger = introduced();
        ledger.will_end(1, fate.clone());
        assert!(ledger.owed().is_some(), "{fate:?} is owed a goodbye");
        goodbye(&mut ledger, 2, reason, time).unwrap();
        assert!(ledger.owed().is_none() && ledger.suspects.is_empty(), "{fate:?}");
        assert!(goodbye(&mut ledger, 3, reason, time).is_err(), "{fate:?}, a second time");
    }
}

#[test]
fn goodbyes_that_nobody_meant_are_found() {
    let lives = ExpectedEnd::Lives { alive_ms: 1_500 };
    let silent = ExpectedEnd::Silent { alive_ms: 1_500 };
    let wrong = [
        (lives.clone(), Reason::Left, 1_600),
        (lives.clone(), Reason::Closed, 1_600),
        (lives.clone(), Reason::Timeout, 3_000),
        (silent.clone(), Reason::Timeout, 3_000),
        (silent, Reason::Closed, 3_600),
        (ExpectedEnd::Left, Reason::Closed, 1_600),
    ];
    for (fate, reason, time) in wrong {
        let mut ledger = introduced();
        ledger.will_end(1, fate.clone());
        assert!(
            goodbye(&mut ledger, 2, reason, time).is_err(),
            "{fate:?} and {reason:?} at {time}"
        );
    }
    // That may come of a slow machine.
    let mut ledger = introduced();
    ledger.will_end(1, lives);
    goodbye(&mut ledger, 2, Reason::Timeout, 3_600).unwrap();
    assert_eq!(ledger.suspects.len(), 1);
}

#[test]
fn silence_after_a_closing_is_cleared_only_by_what_crossed_it() {
    for (came_at, is_cleared) in [(1_600, true), (1_700, false)] {
        let mut ledger = introduced();
        ledger.will_end(
            1,
            ExpectedEnd::Closed { at_ms: 1_600, cursors: vec![(ROOM, 2)], alive_ms: 1_500 },
        );
        sight(&mut ledger, 2, Kind::Message, came_at, 0, Some(said(2, 0))).unwrap();
        goodbye(&mut ledger, 3, Reason::Timeout, 3_700).unwrap();
        let suspect = ledger.suspects.pop().unwrap();
        assert_eq!(ledger.superseded(&suspect), is_cleared);
    }
}

#[test]
fn a_closing_amid_an_upgrade_may_come_as_silence_but_not_before_its_time() {
    for (reason, time, is_right) in [
        (Reason::Closed, 1_600, true),
        (Reason::Timeout, 3_500, true),
        (Reason::Timeout, 3_000, false),
    ] {
        let mut ledger = introduced();
        ledger.will_end(
            1,
            ExpectedEnd::Closed { at_ms: 1_600, cursors: vec![(ROOM, 2)], alive_ms: 1_500 },
        );
        ledger.unsettle_closings();
        assert!(ledger.owed().is_some(), "a goodbye is owed");
        assert_eq!(goodbye(&mut ledger, 2, reason, time).is_ok(), is_right, "{reason:?} at {time}");
        assert!(ledger.suspects.is_empty());
    }
    let mut ledger = introduced();
    ledger.unsettle_closings();
    assert!(goodbye(&mut ledger, 2, Reason::Closed, 1_600).is_err(), "who lives on is not touched");
}
