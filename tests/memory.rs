//! The hub's memory count, compared with the allocator's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::RefCell;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicUsize, Ordering};

use speak::hub::{
    Address, Auth, ChannelName, Config, Credentials, Hub, Introducer, Kick, Millis, Mode, Now,
    ReadRequest, Since, token,
};

/// Bytes currently allocated.
static GIVEN: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: forwards every call unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        GIVEN.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        GIVEN.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(piece, layout) }
    }
}

type Fill<'a> = &'a dyn Fn(&mut Hub, usize);

#[test]
fn the_memory_count_is_close_to_the_allocators() {
    let now = Now { mono: Millis(0), unix_ms: 0 };
    let auth = |number: usize| {
        let mut digits = format!("{number:022}").into_bytes().into_iter();
        Auth::new(token(|| digits.next().unwrap_or(b'a')))
    };
    let write = |hub: &mut Hub, name: &str, text: &str| {
        let channel = ChannelName::parse(name).unwrap().for_writing().unwrap();
        hub.write(now, &channel, text, None).unwrap();
    };
    // The API keeps the names of the channels of a reader that has several.
    let labels = RefCell::new(Vec::new());
    // The counts are estimates. Each has its own percentage, so that a part that is not counted, or
    // counted twice, shows.
    let fills: [(&str, usize, Fill<'_>); 7] = [
        ("short messages in one channel after the other", 114, &|hub, step| {
            write(hub, &format!("channel-{}", step / 100), "howdy");
        }),
        ("long messages in many channels", 100, &|hub, step| {
            write(hub, &format!("channel-{}", step % 50), &"x".repeat(2_000));
        }),
        ("channels with one message", 154, &|hub, step| {
            write(hub, &format!("a-channel-with-a-rather-long-name-{step}"), "");
        }),
        ("members", 119, &|hub, step| {
            let name = format!("channel-{}", step % 20);
            let log = ChannelName::parse(&name).unwrap().for_writing().unwrap();
            hub.introduce(now, &log, "Josh", Introducer::New(auth(step)), None).ok().unwrap();
        }),
        ("addresses that were sent away", 63, &|hub, step| {
            let name = format!("channel-{}", step % 10);
            let channel = ChannelName::parse(&name).unwrap().key();
            let address = NonZeroU64::new(step as u64 + 1).map(Address::new);
            let introducer = Introducer::New(auth(step));
            let troll = hub.introduce(now, &channel, "", introducer, address).ok().unwrap();
            hub.kick(now, &channel, troll.session, Kick { seconds: 60, text: None });
            let credentials = Credentials { session: troll.session, auth: troll.auth.reveal() };
            hub.goodbye(now, credentials, None, None).unwrap();
            hub.deliver(now, |_| {});
        }),
        ("readers", 153, &|hub, step| {
            let name = format!("channel-{}", step % 1_000);
            let follows = [(ChannelName::parse(&name).unwrap().for_reading().unwrap(), Since::Now)];
            let call = ReadRequest {
                targets: &follows,
                epoch: None,
                credentials: None,
                grace_ms: None,
                mode: Mode::LongPoll,
                token: step as u64,
            };
            assert!(hub.read(now, &call).is_ok());
        }),
        ("readers of several channels", 115, &|hub, step| {
            let name = |nth| format!("a-channel-with-a-rather-long-name-{}", (step + nth) % 100);
            let names: [_; 8] = std::array::from_fn(name);
            let key = |name| ChannelName::parse(name).unwrap().for_reading().unwrap();
            let follows = names.each_ref().map(|name| (key(name), Since::Now));
            let call = ReadRequest {
                targets: &follows,
                epoch: None,
                credentials: None,
                grace_ms: None,
                mode: Mode::Stream,
                token: step as u64,
            };
            assert!(hub.read(now, &call).is_ok());
            labels.borrow_mut().push(names.map(String::into_boxed_str));
        }),
    ];
    for (what, expected, fill) in fills {
        let before = GIVEN.load(Ordering::Relaxed);
        let mut hub = Hub::new(Config::default());
        let empty = hub.memory();
        for step in 0..5_000 {
            fill(&mut hub, step);
        }
        let (counted, given) = (hub.memory() - empty, GIVEN.load(Ordering::Relaxed) - before);
        let percent = counted * 100 / given;
        assert!(
            percent.abs_diff(expected) <= 3,
            "{what}: counted {counted} of {given} bytes, {percent} % and not {expected} %"
        );
        drop(hub);
    }
}
