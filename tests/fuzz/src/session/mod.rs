//! Whole sessions: clients send requests, frames and arbitrary bytes, close, and let time pass,
//! against the calls and the hub, in one process. The input controls chance and time.
//!
//! An input is text that can be written by hand. Its first line chooses the settings, a digit each
//! (`settings.rs`); the rest are steps (`steps.rs`). The checks parse the requests themselves, so
//! that the response to a request from the fuzzer's bytes is checked as well:
//!
//! - Every request gets one response, in HTTP that contains what its head says, in JSON that the
//!   contract describes.
//! - Every long poll gets one response. Every stream gets each message once and in order, or
//!   `missed`.
//! - A message is the same for every reader, and equal to the written one. No session has two
//!   goodbyes.
//! - The hub counts the pending reads as the test does, is due at its deadline, and holds nothing
//!   when all clients have closed.

mod asked;
mod input;
mod knowledge;
mod responses;
mod settings;
mod steps;
mod world;

use super::source::Source;

/// Runs one input.
pub fn run(input: &[u8]) {
    let mut source = Source::new(input);
    let mut world = world::World::new(settings::Settings::take(&mut Source::new(source.line())));
    while !source.is_empty() {
        steps::step(&mut world, &mut source);
    }
    world.finish();
}
