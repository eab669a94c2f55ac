//! What every rule may look at while it decides: the clocks, the records, the epochs. Nothing here changes.

use crate::attest::evidence::{Appraised, SignedEvidence};
use crate::beacon::{Calendar, EpochVerified, Epochs};
use crate::cms::records::Records;
use crate::error::Check;
use crate::header::HeaderVerified;
use crate::membership::MemberRecord;
use crate::suite::Suite;
use crate::types::{MeshId, Now};

/// A look at the state of a host that belongs to a mesh.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Cryptography.
    pub suite: &'a dyn Suite,
    /// Both clocks.
    pub now: Now,
    /// The mesh.
    pub mesh: &'a MeshId,
    /// When its epochs begin.
    pub calendar: &'a Calendar,
    /// The records that this host has applied.
    pub records: &'a Records,
    /// The epochs that it verified.
    pub epochs: &'a Epochs,
    /// The newest header that it verified, while it is current.
    pub header: Option<&'a HeaderVerified>,
}

impl<'a> View<'a> {
    /// Appraises evidence of a current epoch by the record of the member that it names.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn appraise(&self, signed: &SignedEvidence) -> Result<(Appraised, &'a MemberRecord), Check> {
        let member = self.records.member(&signed.evidence.host).ok_or(Check::Membership)?;
        let epoch = self.current(signed)?;
        let appraised = Appraised::check(self.suite, self.mesh, epoch, member.record(), signed)?;
        Ok((appraised, member.record()))
    }

    /// Whether this host follows a current header: only then it knows what was revoked.
    ///
    /// # Errors
    /// [`Check::OwnEpoch`] without a current header, [`Check::Behind`] where its records lag.
    pub fn follows_header(&self) -> Result<(), Check> {
        let header = self.header.ok_or(Check::OwnEpoch)?.header();
        let same = self.records.header_of(header.round).is_some_and(|own| own == header);
        if self.records.applied() >= header.record && same { Ok(()) } else { Err(Check::Behind) }
    }

    /// Whether evidence that was appraised once is still of a current epoch.
    pub fn is_current(&self, appraised: &Appraised) -> bool {
        self.current(appraised.signed()).is_ok()
    }

    fn current(&self, signed: &SignedEvidence) -> Result<&'a EpochVerified, Check> {
        let round = signed.evidence.round;
        self.epochs.current_at(self.calendar, self.now, round).ok_or(Check::EvidenceStale)
    }
}
