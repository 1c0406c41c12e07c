//! What the hub tells those who wait, beside what the model says that they are due.

use std::collections::{BTreeMap, VecDeque};

use speak::hub::Wake;

use super::message::{Answer, answer_of};
use super::model::Due;
use super::world::World;

/// A wake-up of the hub.
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
        let Wake { token, same_as_previous, is_last, has_more, .. } = *wake;
        Self {
            client: token,
            answer: answer_of(&wake.reply),
            is_repeat: same_as_previous,
            is_last,
            has_more,
        }
    }
}

impl World {
    pub(crate) fn deliver(&mut self) {
        self.resumed = Default::default();
        let mut wakes = Vec::new();
        self.hub.deliver(self.now, |wake| wakes.push(Delivered::by(&wake)));
        let due = self.model.deliver();
        self.record.note(|| format!("told {wakes:?}"));
        let pairs = pair(&wakes, &due);
        self.assert_shared(&pairs);
        let order: Vec<_> = pairs
            .iter()
            .filter(|(_, due)| !due.news.is_empty())
            .map(|(told, _)| told.client)
            .collect();
        assert_in_order(&due, &order);
        for told in &wakes {
            self.told(told);
        }
    }

    pub(crate) fn resume(&mut self, client: u64) {
        let expected = self.model.resume(client);
        let mut wakes = Vec::new();
        let (mut resumed, before) = std::mem::take(&mut self.resumed);
        let key = self.key_of(client);
        let was_behind =
            self.hub.resume(self.now, key, &mut resumed, |wake| wakes.push(Delivered::by(&wake)));
        assert_eq!(was_behind, expected.is_some(), "whether there was more");
        self.record.note(|| format!("    told {wakes:?}"));
        assert_eq!(
            wakes.iter().map(|told| &told.answer).collect::<Vec<_>>(),
            expected.iter().collect::<Vec<_>>()
        );
        if let Some(told) = wakes.pop() {
            let Delivered { client: whom, is_last, .. } = told;
            assert_eq!((whom, is_last), (client, false), "what a stream resumes with");
            assert!(
                !told.is_repeat || before.as_ref() == Some(&told.answer),
                "a repetition repeats: {before:?}, {told:?}"
            );
            self.record.tally.count_if(told.is_repeat, "answer shared by two that go on");
            self.told(&told);
            self.resumed = (resumed, Some(told.answer));
        }
    }

    fn told(&mut self, told: &Delivered) {
        let is_behind = self.model.clients_behind().contains(&told.client);
        // One that ends in the same turn is told so after this.
        if self.model.waits(told.client) {
            assert_eq!(told.has_more, is_behind, "client {} is to come back for more", told.client);
        }
        self.answered(told.client, &told.answer, told.is_last);
    }

    /// Whoever waits has one last answer, and nothing after it.
    pub(crate) fn answered(&mut self, client: u64, answer: &Answer, is_last: bool) {
        assert!(!self.answered.contains(&client), "client {client} was answered before");
        let follower = self.followers.iter_mut().find(|follower| follower.client == Some(client));
        if let Some(follower) = follower {
            follower.take(answer);
            follower.client = follower.client.filter(|_| !is_last);
        }
        if is_last {
            self.answered.insert(client);
            self.waits.retain(|(_, its), _| *its != client);
        }
    }

    /// Who gets the same as the one before, and of the same channel alone, shares its encoding.
    fn assert_shared(&self, pairs: &[(&Delivered, &Due)]) {
        assert!(
            pairs.first().is_none_or(|(told, _)| !told.is_repeat),
            "the first wake-up repeats nothing"
        );
        for pair in pairs.windows(2) {
            let [(before, due_before), (told, due)] = pair else { unreachable!("two of them") };
            let is_equal = before.answer == told.answer;
            assert!(!told.is_repeat || is_equal, "a repetition repeats: {pair:#?}");
            let have_news = !due_before.news.is_empty() && !due.news.is_empty();
            let is_shared = is_equal
                && have_news
                && due.channels.len() == 1
                && due_before.channels == due.channels;
            assert!(!is_shared || told.is_repeat, "encoded twice: {pair:#?}");
            self.record.tally.count_if(told.is_repeat, "answer shared");
            let are_both = told.is_repeat && before.is_last != told.is_last;
            self.record.tally.count_if(are_both, "answer shared by a stream and a poll");
        }
    }
}

/// Each wake-up with what was due to its client, in the order of that client.
fn pair<'a>(wakes: &'a [Delivered], due: &'a [Due]) -> Vec<(&'a Delivered, &'a Due)> {
    let mut queues: BTreeMap<u64, VecDeque<&Due>> = BTreeMap::new();
    for due in due {
        queues.entry(due.client).or_default().push_back(due);
    }
    let mut pairs = Vec::new();
    for told in wakes {
        let due = queues.get_mut(&told.client).and_then(VecDeque::pop_front);
        let due = due.unwrap_or_else(|| panic!("nothing more was due: {told:#?}"));
        assert_eq!(told.answer, due.answer, "what client {} waited for", told.client);
        assert_eq!(
            told.is_last, due.is_last,
            "whether client {} is answered for good",
            told.client
        );
        pairs.push((told, due));
    }
    let forgotten: Vec<_> = queues.into_values().flatten().collect();
    assert!(forgotten.is_empty(), "not told: {forgotten:#?}");
    pairs
}

/// Of those who are told of the same channels, those who began to wait first come first.
fn assert_in_order(due: &[Due], order: &[u64]) {
    let mut by_news: BTreeMap<Vec<usize>, Vec<u64>> = BTreeMap::new();
    for due in due.iter().filter(|due| !due.news.is_empty()) {
        let mut news = due.news.clone();
        news.sort_unstable();
        by_news.entry(news).or_default().push(due.client);
    }
    for (channels, expected) in by_news {
        let got = order.iter().filter(|client| expected.contains(client));
        assert!(
            got.eq(&expected),
            "channels {channels:?} were to be told to {expected:?} of {order:?}"
        );
    }
}
