//! Whole sessions: clients that send requests, frames and anything else, go, and let time pass, against the calls and the
//! hub, in one process, with chance and time in the input's hand.
//!
//! An input is text that can be written by hand. Its first line chooses what the operator decides, a digit each
//! (`settings.rs`); what follows are steps (`steps.rs`). What is asked is learned from the very requests, so that also one
//! that came out of the fuzzer's bytes has its answer checked:
//!
//! - Every request is answered once, in HTTP that holds what its head says, in JSON that the contract describes.
//! - Every long poll is answered once, every stream is told each message once and in order, or that it missed some.
//! - A message is the same for everybody, and what was written; nobody says goodbye twice.
//! - The hub counts the reads that wait as we do, is due when it says, and holds nothing when all have gone.

mod asked;
mod client;
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
