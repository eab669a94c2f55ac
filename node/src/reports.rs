//! What the host reports, as lines of the log.

use std::time::{Duration, Instant};

use spec::error::{LocalFault, Misbehaved};
use spec::host::Report;
use spec::types::TransportKey;

/// Refusals, and peers thrown out, that are written down in a while; anybody on the network can have more made than a disk
/// holds.
const REFUSALS: u32 = 20;
/// That while.
const WHILE: Duration = Duration::from_secs(1);

/// The log's end of the host's reports.
pub struct Reports {
    since: Instant,
    refusals: u32,
}

impl Default for Reports {
    fn default() -> Self {
        Self { since: Instant::now(), refusals: 0 }
    }
}

impl Reports {
    /// Writes one down.
    pub fn log(&mut self, report: &Report) {
        if !matches!(report, Report::Refused(_)) || self.has_room() {
            write(report);
        }
    }

    /// Writes down that a peer is thrown out.
    pub fn thrown_out(&mut self, peer: &TransportKey, why: &Misbehaved) {
        if self.has_room() {
            tracing::warn!(%peer, %why, "a peer is thrown out");
        }
    }

    /// Whether one more line that others can have made is written down.
    fn has_room(&mut self) -> bool {
        if self.since.elapsed() >= WHILE {
            let left_out = self.refusals.saturating_sub(REFUSALS);
            if left_out > 0 {
                tracing::warn!(left_out, "more was refused than is written down");
            }
            *self = Self::default();
        }
        self.refusals = self.refusals.saturating_add(1);
        self.refusals <= REFUSALS
    }
}

fn write(report: &Report) {
    match report {
        Report::VersionRaised(version) => tracing::info!(version, "the records are read by the next version"),
        Report::Outgrown(version) => tracing::error!(
            version,
            "the mesh went on to a version that this binary does not \
            know: update it; until then it does nothing"
        ),
        Report::Doubted(record) => tracing::error!(
            record,
            "the records that a voter served are not those that the mesh key signed: they are pulled anew from others"
        ),
        Report::Split(round) => tracing::error!(
            %round,
            "the mesh key signed two headers that contradict each other, the later one of this round: somebody with a seat \
            lied. This host erases nothing any more"
        ),
        Report::Skipped(first, last) => tracing::warn!(%first, %last, "the mesh signed nothing in these rounds"),
        Report::Snapshot(record) => tracing::info!(record, "the records up to here are kept as a snapshot"),
        Report::Left(host) => tracing::info!(%host, "left the mesh"),
        Report::Joined => tracing::info!("this host is a member now"),
        Report::Epoch(round) => tracing::debug!(%round, "epoch"),
        Report::Refused(refused) => tracing::warn!(
            check = refused.check.name(),
            subject = ?refused.subject,
            epoch = %refused.round,
            refusal_id = format!("{:016x}", refused.refusal_id),
            "refused"
        ),
        Report::Fault(LocalFault::Disk) => tracing::error!("a write failed: nothing is acknowledged any more"),
        Report::Fault(fault) => tracing::warn!(%fault, "a part of this machine failed"),
        Report::Admitted(host) => tracing::info!(%host, "admitted"),
        Report::Recorded(credential) => tracing::info!(%credential, "recorded"),
        Report::Founded => tracing::info!("the mesh is founded, with this host"),
        Report::Leads(term) => tracing::info!(term, "this host leads"),
        Report::BadDeal(host, check) => tracing::warn!(%host, check = check.name(), "dealt what does not hold"),
        Report::KeyDealt(key_epoch) => tracing::info!(key_epoch, "the shares of the mesh key changed"),
        Report::Unlocked => tracing::info!("unlocked by the mesh"),
        Report::NotApplied(record, check) => tracing::debug!(record, check = check.name(), "a record was refused"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_made_is_written_down_a_few_times_a_second() {
        let mut reports = Reports::default();
        let written = (0..10 * REFUSALS).filter(|_| reports.has_room()).count();
        assert_eq!(u32::try_from(written), Ok(REFUSALS));
        std::thread::sleep(WHILE);
        assert!(reports.has_room(), "and again after a while");
    }
}
