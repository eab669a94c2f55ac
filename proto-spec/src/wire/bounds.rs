//! Lists inside messages, held against their bounds before anything looks at them.

use super::message::{EnrolHello, Entrusting, Message, Package, Placing};
use crate::cms::committee::FOUNDERS;
use crate::error::DecodeError;
use crate::founding::Founder;
use crate::limits::{
    ADDRESS_MAX, COMMITTEE_MAX, EKS_MAX, ENTRY_MAX, HEAD_MAX, MEMBERS_MAX, PAGE_ENTRIES_MAX, PIECE_BYTES,
    PIECE_TAG_BYTES, PIECES_MAX, SEALED_SHARE_MAX, SHARD_MAP_MAX, SHARES_MAX, STATE_PAGE_ROWS_MAX,
};
use crate::tree::PATH_MAX;

impl EnrolHello {
    fn within_bounds(&self) -> bool {
        self.keys.within_bounds() && self.address.0.len() <= ADDRESS_MAX
    }
}

impl Package {
    /// Whether every list is within its bound.
    pub fn within_bounds(&self) -> bool {
        let piece_max = PIECE_BYTES + PIECE_TAG_BYTES;
        self.head.len() <= HEAD_MAX
            && self.sealed.len() <= SHARES_MAX
            && self.sealed.iter().all(|sealed| sealed.len() <= SEALED_SHARE_MAX)
            && self.commitments.len() <= SHARES_MAX
            && self.pieces.len() <= PIECES_MAX
            && self.pieces.iter().all(|piece| piece.len() <= piece_max)
    }
}

impl Message {
    /// Lists that no later check bounds by itself.
    pub(super) fn check_bounds(&self) -> Result<(), DecodeError> {
        let bound = |name, length: usize, max: usize| {
            if length > max { Err(DecodeError::Bound(name)) } else { Ok(()) }
        };
        match self {
            Self::EnrolHello(hello) if !hello.within_bounds() => Err(DecodeError::Bound("joiner keys")),
            Self::EnrolChallenge { blobs } => bound("blobs", blobs.len(), EKS_MAX),
            Self::EnrolCommittee { committee, .. } => {
                bound("committee", committee.len(), COMMITTEE_MAX)?;
                committee.iter().try_for_each(|one| bound("address", one.address.0.len(), ADDRESS_MAX))
            }
            Self::EnrolAdmit { parts, .. } => bound("parts", parts.len(), COMMITTEE_MAX),
            Self::FoundingCall { founders, .. } => {
                bound("founders", founders.len(), FOUNDERS)?;
                let sound = |one: &Founder| one.hello.within_bounds();
                if founders.iter().all(sound) { Ok(()) } else { Err(DecodeError::Bound("founder")) }
            }
            Self::FoundingChallenge { blobs, .. } => bound("blobs", blobs.len(), EKS_MAX),
            Self::FoundingDeal { deal, .. } | Self::KeyDealt { deal, .. } if !deal.within_bounds() => {
                Err(DecodeError::Bound("deal"))
            }
            Self::FoundingVote { vote, .. } => {
                bound("parts", vote.parts.len(), FOUNDERS + 1).and(bound("deals", vote.deals.len(), FOUNDERS))
            }
            Self::FoundingDone(founding) => bound("founders", founding.founders.len(), FOUNDERS),
            Self::Ballot(ballot) if !ballot.within_bounds() => Err(DecodeError::Bound("ballot")),
            Self::Ballot(ballot) => {
                ballot.entries.iter().try_for_each(|entry| bound("entry", entry.command.len(), ENTRY_MAX))
            }
            Self::Unseated(seating) => bound("seats", seating.seats.len(), COMMITTEE_MAX + 1),
            Self::SeatProof(proof) => {
                bound("seats", proof.seating.seats.len(), COMMITTEE_MAX + 1)?;
                bound("path", proof.member.path.len(), PATH_MAX)
            }
            Self::UnlockPart { sealed, .. } => bound("sealed", sealed.len(), SEALED_SHARE_MAX),
            Self::Announce { presence: Some(presence), .. } => {
                bound("presence", presence.len(), MEMBERS_MAX)?;
                let mut words = presence.iter().filter_map(|one| one.whereabouts.as_ref());
                words.try_for_each(|word| bound("address", word.address.0.len(), ADDRESS_MAX))
            }
            Self::EvidenceAnnounce { whereabouts, .. } => bound("address", whereabouts.address.0.len(), ADDRESS_MAX),
            Self::RecordsPage { entries, .. } => {
                bound("entries", entries.len(), PAGE_ENTRIES_MAX)?;
                entries.iter().try_for_each(|entry| bound("entry", entry.command.len(), ENTRY_MAX))
            }
            Self::StatePage { rows, .. } => {
                bound("rows", rows.len(), STATE_PAGE_ROWS_MAX)?;
                rows.iter().try_for_each(|row| bound("row", row.len(), ENTRY_MAX))
            }
            Self::PutBegin(Placing { order, .. }) | Self::Entrust(Entrusting { order, .. })
                if !order.within_bounds() =>
            {
                Err(DecodeError::Bound("order"))
            }
            Self::PutBegin(Placing { without, .. }) => bound("holders", without.len(), SHARES_MAX),
            Self::PutBundle { bundle, .. } => bound("holders", bundle.holders.len(), SHARES_MAX),
            Self::Entrusted { package, .. } if !package.within_bounds() => Err(DecodeError::Bound("package")),
            Self::ShareStore { commitments, pieces, .. } => {
                bound("commitments", commitments.len(), SHARES_MAX)?;
                bound("pieces", pieces.len(), PIECES_MAX)
            }
            Self::PutRecord { receipts, .. } => bound("receipts", receipts.len(), SHARES_MAX),
            Self::MapReply { file, .. } => bound("file", file.len(), SHARD_MAP_MAX),
            Self::ShareReply { commitments, .. } => bound("commitments", commitments.len(), SHARES_MAX),
            Self::PayloadReply { pieces, .. } => bound("pieces", pieces.len(), PIECES_MAX),
            _ => Ok(()),
        }
    }
}
