//! Shared state of a hub as text: two hubs with equal states give equal texts.

use speak::hub::{Hub, Now, SnapshotRecord};

/// Returns a line for each channel and session. Without the messages, whose drop is local.
pub(crate) fn shared_state(hub: &Hub) -> Vec<String> {
    let mut lines = Vec::new();
    let mut names = Vec::new();
    let save = |record: &SnapshotRecord<'_>| {
        lines.push(match record {
            SnapshotRecord::Header(header) => {
                let (epoch, key) = (header.epoch, header.watermark_hash_key);
                format!("epoch {epoch:?}, key {key:?}, last session {}", header.last_session)
            }
            SnapshotRecord::IdWatermark { bucket, next_id } => format!("{bucket}: {next_id}"),
            SnapshotRecord::Channel(channel) => {
                names.push(channel.name.to_owned());
                let next_id = channel.first_id + channel.entries.len() as u64;
                let mut members: Vec<_> =
                    channel.members.iter().map(|its| (its.session, its.id, its.unix_ms)).collect();
                members.sort_unstable();
                format!("{} {next_id} {members:?}", channel.name)
            }
            SnapshotRecord::Session(session) => {
                let channels = session.channels.iter();
                let channels: Vec<_> = channels.map(|place| &names[*place as usize]).collect();
                format!("{} {} {channels:?}", session.number, session.auth)
            }
        });
        Ok::<_, ()>(())
    };
    hub.save(Now::default(), 0, save).expect("nothing fails");
    lines.sort_unstable();
    lines
}
