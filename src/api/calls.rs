//! The table of calls.
//!
//! A new call takes three steps:
//!
//! 1. Add a row to the table, `calls!`. Its path gives the name of the call in frames, in the log
//!    and in metrics. Its parameters, its methods, the pages that may call it and the error texts
//!    that list it follow from the row.
//! 2. Add its function, below the table: parse the parameters, call the hub, append JSON.
//! 3. Add the method of the hub that the function calls.
//!
//! `preconditions.rs`, two unit tests, the documentation and the simulations need the call too:
//! `CONTRIBUTING.md`.

use super::behind::Behind;
use super::client_addr::RequestSource;
use super::error::Error;
use super::json;
use super::params::Param::{
    Auth, Callback, Channel, Connection, Epoch, From, FromId, Grace, Id, Kind, Message, Seconds,
    Timeout,
};
use super::params::{ParamSet, Parameters, Schema};
use crate::hub::{self, Hub, Introducer, Kick, Now, Pair, TOKEN_BYTES};

/// Hub that a call acts on, and the client that makes the call.
pub struct Context<'a> {
    /// Hub to act on.
    pub hub: &'a mut Hub,
    /// Time of the turn.
    pub now: Now,
    /// Peer of the client's socket. Calls in frames count against the source of the handshake.
    pub source: RequestSource,
    /// Number that the caller chooses. [`Wake::token`](hub::Wake::token) returns it.
    pub token: u64,
    /// Earlier calls of the client wait for the log.
    pub is_waiting: bool,
    /// The call was made before, and has waited for this since.
    pub waited: Option<Behind>,
}

/// Limits and randomness that calls need.
pub(super) struct Settings {
    /// Bytes of a message. A call with a larger one fails.
    pub(super) max_message: usize,
    /// Bytes of the text of an introduction. A call with a larger one fails.
    pub(super) max_introduction: usize,
    /// Time without a call after which a session ends, as `/introduce` reports it.
    pub(super) session_timeout_ms: u64,
    /// Fills a buffer with bytes that cannot be guessed.
    pub(super) random: fn(&mut [u8]),
}

/// Result of a call that does not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Executed {
    /// The JSON of the response was appended.
    Done,
    /// The call waits for the log.
    Proposed,
    /// The call was not made: this process is behind.
    Behind(Behind),
}

/// Function of a call that waits for no reader. It appends the JSON of the response, or proposes a
/// command.
pub(super) type Execute =
    fn(&Settings, &mut Context<'_>, &Parameters<'_>, &mut Vec<u8>) -> Result<Executed, Error>;

/// Handling of a call.
#[derive(Clone, Copy)]
pub(super) enum Action {
    Execute(Execute),
    /// A read, which may wait: `read.rs` for requests, `frame.rs` for frames.
    Read,
}

/// Row of the table.
struct Row {
    schema: Schema,
    /// HEAD is allowed, in addition to GET and POST: the call has no effects.
    allows_head: bool,
    /// Frames of a WebSocket may make the call.
    is_in_frames: bool,
    /// Counts against `--max-rate`.
    is_rate_limited: bool,
    action: Action,
}

/// Defines [`Call`] and the table from its rows.
macro_rules! calls {
    ($($call:ident => $row:expr,)*) => {
        /// Calls that respond in JSON.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Call {
            $($call),*
        }

        impl Call {
            /// All calls, in the order in which metrics list them.
            pub(super) const ALL: [Self; [$(Self::$call),*].len()] = [$(Self::$call),*];
        }

        static TABLE: [Row; Call::ALL.len()] = [$($row),*];
    };
}

calls! {
    Read => Row {
        schema: Schema {
            path: "/read",
            known: ParamSet::of(&[
                Channel, FromId, Connection, Auth, Timeout, Epoch, Grace, Callback,
            ]),
            lists: ParamSet::of(&[Channel, FromId]),
            adds_messages: false,
        },
        allows_head: false,
        is_in_frames: true,
        is_rate_limited: false,
        action: Action::Read,
    },
    Write => Row {
        schema: Schema {
            path: "/write",
            known: ParamSet::of(&[Channel, Message, Connection, Auth, Callback]),
            lists: ParamSet::EMPTY,
            adds_messages: true,
        },
        allows_head: false,
        is_in_frames: true,
        is_rate_limited: true,
        action: Action::Execute(write),
    },
    Introduce => Row {
        schema: Schema {
            path: "/introduce",
            known: ParamSet::of(&[Channel, Message, Connection, Auth, Callback]),
            lists: ParamSet::EMPTY,
            adds_messages: true,
        },
        allows_head: false,
        is_in_frames: true,
        is_rate_limited: true,
        action: Action::Execute(introduce),
    },
    Goodbye => Row {
        schema: Schema {
            path: "/goodbye",
            known: ParamSet::of(&[Channel, Message, Connection, Auth, Callback]),
            lists: ParamSet::EMPTY,
            adds_messages: true,
        },
        allows_head: false,
        is_in_frames: true,
        is_rate_limited: false,
        action: Action::Execute(goodbye),
    },
    Members => Row {
        schema: Schema {
            path: "/members",
            known: ParamSet::of(&[Channel, From, Callback]),
            lists: ParamSet::EMPTY,
            adds_messages: false,
        },
        allows_head: false,
        is_in_frames: true,
        is_rate_limited: false,
        action: Action::Execute(members),
    },
    Create => Row {
        schema: Schema {
            path: "/create",
            known: ParamSet::of(&[Kind, Callback]),
            lists: ParamSet::EMPTY,
            adds_messages: false,
        },
        allows_head: false,
        is_in_frames: true,
        is_rate_limited: false,
        action: Action::Execute(create),
    },
    Remove => Row {
        schema: Schema {
            path: "/remove",
            known: ParamSet::of(&[Channel, Id, Callback]),
            lists: ParamSet::EMPTY,
            adds_messages: true,
        },
        allows_head: false,
        is_in_frames: true,
        is_rate_limited: true,
        action: Action::Execute(remove),
    },
    Kick => Row {
        schema: Schema {
            path: "/kick",
            known: ParamSet::of(&[Channel, Connection, Seconds, Message, Callback]),
            lists: ParamSet::EMPTY,
            adds_messages: true,
        },
        allows_head: false,
        is_in_frames: true,
        is_rate_limited: false,
        action: Action::Execute(kick),
    },
    Health => Row {
        schema: Schema {
            path: "/health",
            known: ParamSet::of(&[Callback]),
            lists: ParamSet::EMPTY,
            adds_messages: false,
        },
        allows_head: true,
        is_in_frames: false,
        is_rate_limited: false,
        action: Action::Execute(health),
    },
}

/// Error detail that lists the calls that frames may make. The compiler puts it together.
static UNKNOWN_CALL: &str =
    match str::from_utf8(UNKNOWN_CALL_BYTES.0.split_at(UNKNOWN_CALL_BYTES.1).0) {
        Ok(text) => text,
        Err(_) => panic!("paths are ASCII"),
    };

/// The bytes of [`UNKNOWN_CALL`], and their number.
static UNKNOWN_CALL_BYTES: ([u8; 128], usize) = {
    let (mut bytes, mut length) = ([0; 128], 0);
    append(&mut bytes, &mut length, "unknown 'call'; use one of ", 0);
    let (mut index, mut is_first) = (0, true);
    while index < TABLE.len() {
        if TABLE[index].is_in_frames {
            append(&mut bytes, &mut length, if is_first { "" } else { ", " }, 0);
            append(&mut bytes, &mut length, TABLE[index].schema.path, 1);
            is_first = false;
        }
        index += 1;
    }
    (bytes, length)
};

/// Copies `text` from byte `from` on to `bytes[*length..]`.
const fn append(bytes: &mut [u8; 128], length: &mut usize, text: &str, mut from: usize) {
    while from < text.len() {
        bytes[*length] = text.as_bytes()[from];
        *length += 1;
        from += 1;
    }
}

impl Call {
    #[inline]
    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Returns the call of a path.
    pub(super) fn from_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|call| call.schema().path == path)
    }

    /// Returns the call of that name, if frames may make it.
    pub(super) fn from_frame(name: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|call| call.name() == name && call.row().is_in_frames)
            .ok_or(Error::BadParameter(UNKNOWN_CALL))
    }

    /// Returns the name in frames, in the log and in metrics: the path without its slash.
    pub(super) fn name(self) -> &'static str {
        &self.schema().path[1..]
    }

    #[inline]
    pub(super) fn schema(self) -> &'static Schema {
        &self.row().schema
    }

    pub(super) fn allows_head(self) -> bool {
        self.row().allows_head
    }

    /// Returns whether the call changes shared state, so that it waits for the log.
    pub(super) fn is_logged(self) -> bool {
        matches!(self, Self::Write | Self::Introduce | Self::Goodbye | Self::Remove | Self::Kick)
    }

    /// Returns whether the call depends on the address of the client: an introduction has it, and
    /// an address may have been sent away.
    #[inline]
    pub(super) fn needs_address(self, hub: &Hub) -> bool {
        self == Self::Introduce || (hub.has_bans() && self.schema().adds_messages)
    }

    /// Returns whether the call has effects: HEAD and a prefetch must not make it.
    pub(super) fn acts(self) -> bool {
        !self.allows_head()
    }

    #[inline]
    pub(super) fn is_rate_limited(self) -> bool {
        self.row().is_rate_limited
    }

    #[inline]
    pub(super) fn action(self) -> Action {
        self.row().action
    }
}

fn write(
    settings: &Settings,
    context: &mut Context<'_>,
    parameters: &Parameters<'_>,
    json: &mut Vec<u8>,
) -> Result<Executed, Error> {
    let channel = parameters.channel()?.for_writing()?;
    let message = parameters.message(settings.max_message)?;
    let credentials = parameters.credentials()?;
    if parameters.address.is_some() {
        context.hub.check_address(context.now, &channel, parameters.address)?;
    }
    if context.hub.is_logged() {
        context.hub.propose_write(context.now, &channel, message, credentials)?;
        return Ok(Executed::Proposed);
    }
    let id = context.hub.write(context.now, &channel, message, credentials)?;
    json::push_id(json, id);
    Ok(Executed::Done)
}

fn introduce(
    settings: &Settings,
    context: &mut Context<'_>,
    parameters: &Parameters<'_>,
    json: &mut Vec<u8>,
) -> Result<Executed, Error> {
    let channel = parameters.channel()?.for_writing()?;
    let message = parameters.message(settings.max_message)?;
    if message.len() > settings.max_introduction {
        return Err(Error::IntroductionTooLarge);
    }
    let caller = match parameters.credentials()? {
        Some(credentials) => Introducer::Existing(credentials),
        None => Introducer::New(hub::Auth::new(random_token(settings.random))),
    };
    let (hub, address) = (&mut *context.hub, parameters.address);
    if hub.has_bans() {
        hub.check_address(context.now, &channel, address)?;
    }
    if hub.is_logged() {
        hub.propose_introduction(context.now, &channel, message, &caller, address)?;
        return Ok(Executed::Proposed);
    }
    let introduced = hub.introduce(context.now, &channel, message, caller, address)?;
    json::push_introduced(json, &introduced, settings.session_timeout_ms);
    Ok(Executed::Done)
}

fn goodbye(
    settings: &Settings,
    context: &mut Context<'_>,
    parameters: &Parameters<'_>,
    json: &mut Vec<u8>,
) -> Result<Executed, Error> {
    parameters.connection.as_ref().ok_or_else(|| parameters.missing("connection"))?;
    parameters.auth.as_ref().ok_or_else(|| parameters.missing("auth"))?;
    let channel = match parameters.optional_channel()? {
        Some(name) => Some(name.for_writing()?),
        None => None,
    };
    let credentials = parameters.credentials()?.expect("both parameters are present");
    let message = parameters.optional_message(settings.max_message)?;
    if let address @ Some(_) = parameters.address {
        let (now, channel) = (context.now, channel.as_ref());
        context.hub.check_goodbye_address(now, credentials, channel, address)?;
    }
    if context.hub.is_logged() {
        context.hub.propose_goodbye(context.now, credentials, channel.as_ref(), message)?;
        return Ok(Executed::Proposed);
    }
    context.hub.goodbye(context.now, credentials, channel.as_ref(), message)?;
    json.extend_from_slice(b"{\"ok\":true}");
    Ok(Executed::Done)
}

fn members(
    _: &Settings,
    context: &mut Context<'_>,
    parameters: &Parameters<'_>,
    json: &mut Vec<u8>,
) -> Result<Executed, Error> {
    let channel = parameters.channel()?.for_reading()?;
    let after = parameters.members_after()?;
    json::push_members(json, &context.hub.members(context.now, &channel, after));
    Ok(Executed::Done)
}

fn create(
    settings: &Settings,
    _: &mut Context<'_>,
    parameters: &Parameters<'_>,
    json: &mut Vec<u8>,
) -> Result<Executed, Error> {
    json::push_pair(json, &Pair::new(parameters.pair_kind()?, random_token(settings.random)));
    Ok(Executed::Done)
}

fn remove(
    _: &Settings,
    context: &mut Context<'_>,
    parameters: &Parameters<'_>,
    json: &mut Vec<u8>,
) -> Result<Executed, Error> {
    let name = parameters.channel()?;
    let channel = if context.source.is_admin { name.key() } else { name.for_removing()? };
    let id = parameters.message_id()?;
    if context.hub.is_logged() {
        context.hub.propose_removal(context.now, &channel, id)?;
        return Ok(Executed::Proposed);
    }
    json::push_id(json, context.hub.remove(context.now, &channel, id)?);
    Ok(Executed::Done)
}

fn kick(
    settings: &Settings,
    context: &mut Context<'_>,
    parameters: &Parameters<'_>,
    json: &mut Vec<u8>,
) -> Result<Executed, Error> {
    let name = parameters.channel()?;
    let channel = if context.source.is_admin { name.key() } else { name.for_kicking()? };
    let session = parameters.connection_number()?;
    let seconds = parameters.ban_seconds()?;
    let kick = Kick { seconds, text: parameters.optional_message(settings.max_message)? };
    if context.hub.is_logged() {
        context.hub.propose_kick(context.now, &channel, session, kick)?;
        return Ok(Executed::Proposed);
    }
    context.hub.kick(context.now, &channel, session, kick);
    json.extend_from_slice(b"{\"ok\":true}");
    Ok(Executed::Done)
}

#[expect(clippy::unnecessary_wraps, reason = "the type of every function in the table")]
fn health(
    _: &Settings,
    _: &mut Context<'_>,
    _: &Parameters<'_>,
    json: &mut Vec<u8>,
) -> Result<Executed, Error> {
    json.extend_from_slice(b"{\"status\":\"ok\"}");
    Ok(Executed::Done)
}

/// Draws a new secret.
fn random_token(random: fn(&mut [u8])) -> [u8; TOKEN_BYTES] {
    let mut bytes = [0; 32];
    let mut used = bytes.len();
    hub::token(|| {
        if used == bytes.len() {
            random(&mut bytes);
            used = 0;
        }
        used += 1;
        bytes[used - 1]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_has_two_of_the_parameters_that_share_a_place() {
        for call in Call::ALL {
            let known = call.schema().known;
            let shared = [From, Kind, Id, Seconds].into_iter().filter(|it| known.contains(*it));
            assert!(shared.count() < 2, "{}", call.name());
        }
    }

    #[test]
    fn a_secret_takes_as_many_random_bytes_as_it_needs() {
        // 255 gives no character, so each 32 bytes give one.
        let random = |bytes: &mut [u8]| {
            bytes.fill(255);
            bytes[31] = 1;
        };
        assert_eq!(random_token(random), [b'B'; TOKEN_BYTES]);
    }

    #[test]
    fn a_frame_of_an_unknown_call_gets_the_list_of_calls() {
        for name in ["health", "nonsense", "/write", ""] {
            let Err(error) = Call::from_frame(name) else { panic!("{name} is a call") };
            assert_eq!(
                error.detail(),
                "unknown 'call'; use one of read, write, introduce, goodbye, members, create, \
                 remove, kick"
            );
        }
        assert_eq!(Call::from_frame("write"), Ok(Call::Write));
    }
}
