//! `/read` as a response at once, or as a long poll.

use super::api::{Api, Handled};
use super::behind::Behind;
use super::calls::Context;
use super::error::Error;
use super::json;
use super::read_params::{ReadCall, ReadParams};
use super::transport::Transport;
use crate::hub::{Mode, ReadResult};

impl Api {
    /// Makes a read. Returns `None` if the JSON of the response is in `self.json`, and otherwise a
    /// long poll or a stream.
    pub(super) fn read(
        &mut self,
        context: &mut Context<'_>,
        call: &ReadCall<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Handled>, Error> {
        if let Some(transport) = Transport::from_request(call.request)? {
            if transport == Transport::WebSocket {
                self.config.allow_origin.check_origin(call.request)?;
            }
            return self.start_stream(context, call, transport, out).map(Some);
        }
        let params = ReadParams::parse(call.parameters, self.poll_timeout_ms)?;
        let mode = if params.wait_ms > 0 { Mode::LongPoll } else { Mode::Immediate };
        let request = params.request(mode, context.token);
        let may_be_behind = context.may_be_behind();
        match context.hub.read_at(context.now, &request, may_be_behind)? {
            ReadResult::Ready(reply) => {
                let labels = call.parameters.channels.iter();
                let insertions = Some(&mut self.insertions);
                json::push_reply(&mut self.json, reply.slices(), labels, self.epoch, insertions);
                Ok(None)
            }
            ReadResult::Pending(reader) => Ok(Some(Handled::LongPoll {
                reader,
                format: call.options.to_reply_format(call.parameters, reader),
                wait_ms: params.wait_ms,
            })),
            ReadResult::Behind => Ok(Some(Handled::Behind(Behind::Barrier))),
            ReadResult::Streaming(..) => unreachable!("the mode is not Stream"),
        }
    }
}
