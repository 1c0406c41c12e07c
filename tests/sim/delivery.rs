//! Deliveries of the hub, compared with those that are due by the model.

use std::collections::{BTreeMap, VecDeque};

use speak::hub::Wake;

use super::message::{Answer, answer_of};
use super::model::Due;
use super::world::World;

/// A wake-up of a client by the hub.
#[derive(Debug)]
struct Delivered {
    client: u64,
    answer: Answer,
    is_repeat: bool,
    is_last: bool,
    has_more: bool,
}

impl Delivered {
    fn by(wake: &Wake<'_>) -> Self {
        let Wake { token: client, same_as_previous: is_repeat, is_last, has_more, .. } = *wake;
        Self { client, answer: answer_of(&wake.reply), is_repeat, is_last, has_more }
    }
}

impl World {
    pub(crate) fn deliver(&mut self) {
        self.resumed = Default::default();
        let mut wakes = Vec::new();
        self.hub.deliver(self.now, |wake| wakes.push(Delivered::by(&wake)));
        let due = self.model.deliver();
        self.record.note(|| format!("wakes {wakes:?}"));
        let pairs = pair(&wakes, &due);
        self.assert_shared(&pairs);
        let with_news = pairs.iter().filter(|(_, due)| !due.news.is_empty());
        assert_in_order(&due, &with_news.map(|(wake, _)| wake.client).collect::<Vec<_>>());
        for wake in &wakes {
            self.woken(wake);
        }
    }

    pub(crate) fn resume(&mut self, client: u64) {
        self.record.step(|| format!("resume {client}"));
        let expected = self.model.resume(client);
        let mut wakes = Vec::new();
        let (mut resumed, before) = std::mem::take(&mut self.resumed);
        let key = self.key_of(client);
        let was_paused =
            self.hub.resume(self.now, key, &mut resumed, |wake| wakes.push(Delivered::by(&wake)));
        assert_eq!(was_paused, expected.is_some(), "whether there was more");
        self.record.note(|| format!("    wakes {wakes:?}"));
        assert!(
            wakes.iter().map(|wake| &wake.answer).eq(&expected),
            "not {expected:#?}: {wakes:#?}"
        );
        if let Some(wake) = wakes.pop() {
            let Delivered { client: its, is_last, .. } = wake;
            assert_eq!((its, is_last), (client, false), "the wake-up of a stream that resumes");
            let is_same = before.as_ref() == Some(&wake.answer);
            assert!(!wake.is_repeat || is_same, "a repetition repeats: {before:?}, {wake:?}");
            self.record.tally.count_if(wake.is_repeat, "answer shared by two that resume");
            self.woken(&wake);
            self.resumed = (resumed, Some(wake.answer));
        }
        self.compare_counts();
    }

    fn woken(&mut self, wake: &Delivered) {
        let paused = self.model.clients(|read| read.is_paused);
        let is_paused = paused.contains(&wake.client);
        // If it ends in the same turn, another wake-up comes.
        if self.model.is_pending(wake.client) {
            assert_eq!(wake.has_more, is_paused, "client {} is to come back for more", wake.client);
        }
        self.answered(wake.client, &wake.answer, wake.is_last);
    }

    /// Notes an answer. A client gets one last answer, and nothing after it.
    pub(crate) fn answered(&mut self, client: u64, answer: &Answer, is_last: bool) {
        assert!(!self.answered.contains(&client), "client {client} was answered before");
        let follower = self.followers.iter_mut().find(|follower| follower.client == Some(client));
        if let Some(follower) = follower {
            let model = &self.model;
            let was_given =
                |channel, id| model.messages_ever(channel).any(|message| message.id == id);
            follower.take(answer, was_given);
            follower.client = follower.client.filter(|_| !is_last);
        }
        if is_last {
            self.answered.insert(client);
            self.waits.retain(|(_, its), _| *its != client);
        }
    }

    /// Claims that equal answers of one channel in a row share their encoding.
    fn assert_shared(&self, pairs: &[(&Delivered, &Due)]) {
        let is_right = pairs.first().is_none_or(|(wake, _)| !wake.is_repeat);
        assert!(is_right, "the first wake-up repeats nothing");
        for pair in pairs.windows(2) {
            let [(before, due_before), (wake, due)] = pair else { unreachable!("two of them") };
            let is_equal = before.answer == wake.answer;
            assert!(!wake.is_repeat || is_equal, "a repetition repeats: {pair:#?}");
            let have_news = !due_before.news.is_empty() && !due.news.is_empty();
            let is_shared = is_equal
                && have_news
                && due.channels.len() == 1
                && due_before.channels == due.channels
                // A read from 0 may get an introduction in the place of what was removed.
                && !self.model.has_removed_introduction(due.channels[0]);
            assert!(!is_shared || wake.is_repeat, "encoded twice: {pair:#?}");
            self.record.tally.count_if(wake.is_repeat, "answer shared");
            let are_both = wake.is_repeat && before.is_last != wake.is_last;
            self.record.tally.count_if(are_both, "answer shared by a stream and a poll");
        }
    }
}

/// Pairs each wake-up with the answer that was due to its client.
fn pair<'a>(wakes: &'a [Delivered], due: &'a [Due]) -> Vec<(&'a Delivered, &'a Due)> {
    let mut queues: BTreeMap<u64, VecDeque<&Due>> = BTreeMap::new();
    for due in due {
        queues.entry(due.client).or_default().push_back(due);
    }
    let mut pairs = Vec::new();
    for wake in wakes {
        let client = wake.client;
        let due = queues.get_mut(&client).and_then(VecDeque::pop_front);
        let due = due.unwrap_or_else(|| panic!("nothing more was due: {wake:#?}"));
        assert_eq!(wake.answer, due.answer, "the answer of client {client}");
        assert_eq!(wake.is_last, due.is_last, "whether client {client} gets its last answer");
        pairs.push((wake, due));
    }
    let forgotten: Vec<_> = queues.into_values().flatten().collect();
    assert!(forgotten.is_empty(), "not sent: {forgotten:#?}");
    pairs
}

/// Claims that of clients with news of the same channels the first to wait is the first to be
/// answered.
fn assert_in_order(due: &[Due], order: &[u64]) {
    let mut by_news: BTreeMap<Vec<usize>, Vec<u64>> = BTreeMap::new();
    for due in due.iter().filter(|due| !due.news.is_empty()) {
        let mut news = due.news.clone();
        news.sort_unstable();
        by_news.entry(news).or_default().push(due.client);
    }
    for (channels, expected) in by_news {
        let got = order.iter().filter(|client| expected.contains(client));
        assert!(got.eq(&expected), "channels {channels:?} were due to {expected:?} in {order:?}");
    }
}
