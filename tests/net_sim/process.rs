//! The process of a server with a journal: it starts with a new one, or with what another left.

use std::rc::Rc;

use speak::hub::{Config, Epoch, Hub, Now};
use speak::service::{AcceptLimits, InitialHub, Service};
use support::random::Random;

use crate::disk::{Disk, SharedDisk, SimLog};
use crate::plan::Plan;
use crate::socket::{Net, START_S, SimListener};
use crate::tls_link::context;

/// Bytes of a piece of a snapshot: small states have several.
const PIECE_BYTES: usize = 300;

/// Commands of a record, in runs whose turns have little time. More become several records.
const RECORD_COMMANDS_MAX: u32 = 3;

/// Returns the settings of a hub whose epoch is this one, unless its journal has another.
pub(crate) fn config(plan: &Plan, epoch: [u8; 8]) -> Config {
    let options = &plan.options;
    Config {
        history: options.history,
        retention: options.retention,
        connection_timeout: options.connection_timeout,
        close_grace: options.close_grace,
        max_reply: options.max_reply,
        max_channels: options.max_channels,
        max_memory: options.max_memory,
        epoch: Epoch::new(epoch),
        watermark_hash_key: [5; 16],
    }
}

/// Starts a server with a journal. Its hub is new, or what was recovered.
pub(crate) fn start(
    plan: &Plan,
    net: &Net,
    disk: &SharedDisk,
    initial: InitialHub,
    fill: fn(&mut [u8]),
) -> Service<SimListener> {
    let listeners = vec![SimListener(Rc::clone(net), context(START_S))];
    let limits = AcceptLimits::new(plan.numbers.max_clients, usize::MAX);
    let mut initial = initial;
    initial.hub.set_piece_bytes(PIECE_BYTES);
    let mut service = Service::with_hub(&plan.options, initial, listeners, limits, fill);
    service.set_step_weight(plan.weight);
    if plan.weight > 1 {
        service.set_record_commands_max(RECORD_COMMANDS_MAX);
    }
    service.set_log(Box::new(SimLog(Rc::clone(disk))));
    service
}

/// Starts a server with a new journal, if the plan has one.
pub(crate) fn start_new(
    plan: &Plan,
    net: &Net,
    random: &mut Random,
    now: Now,
    fill: fn(&mut [u8]),
) -> Option<(SharedDisk, Service<SimListener>)> {
    let disk = plan.disk.clone()?;
    let hub = Hub::new(config(plan, *b"journals"));
    let random = Random::new(random.next());
    let disk = Disk::new(disk, config(plan, *b"anything"), random, &hub, now);
    let disk = SharedDisk::new(disk.into());
    let service = start(plan, net, &disk, InitialHub { hub, now }, fill);
    Some((disk, service))
}
