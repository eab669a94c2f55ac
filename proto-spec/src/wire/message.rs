//! The messages between hosts. Each goes one way; an answer is a message of its own that repeats the request's id.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::attest::enroll::JoinerKeys;
use crate::attest::evidence::SignedEvidence;
use crate::attest::quote::Quote;
use crate::attest::tpm::CredentialBlob;
use crate::credential::head::SignedHead;
use crate::credential::split::PutOrder;
use crate::epoch::SignedEpoch;
use crate::error::{DecodeError, Refused};
use crate::genesis::SignedGenesis;
use crate::limits::{
    ADDRESS_MAX, EKS_MAX, ENTRY_MAX, HEAD_MAX, MEMBERS_MAX, PAGE_ENTRIES_MAX, PIECE_BYTES, PIECE_TAG_BYTES, PIECES_MAX,
    SEALED_SHARE_MAX, SHARD_MAP_MAX, SHARES_MAX,
};
use crate::membership::Admission;
use crate::ticket::SignedTicket;
use crate::types::{
    Commitment, CredentialId, Digest, Ed25519Signature, Generation, GroupId, HostId, RequestId, Round, ShareIndex,
};

/// host:port, as a person writes it; empty where none is known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Address(pub String);

/// What a member is known to be doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Its evidence of a current epoch was appraised and is good.
    Good,
    /// Its newest evidence failed this check.
    Refused(crate::error::Check),
    /// No evidence of a current epoch was seen.
    Absent,
}

/// One line of the announcement: where a member is and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Presence {
    /// The member.
    pub host: HostId,
    /// Where it was last heard.
    pub address: Address,
    /// How it stands with the coordinator.
    pub standing: Standing,
}

/// One entry of the record log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEntry {
    /// Its index, from 1.
    pub index: u64,
    /// Canonical bytes of a record command.
    #[serde(with = "serde_bytes")]
    pub command: Vec<u8>,
}

/// A joiner's first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolHello {
    /// The ticket.
    pub ticket: SignedTicket,
    /// The joiner's keys.
    pub keys: JoinerKeys,
}

/// A joiner's answer to its challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolAnswer {
    /// A quote over the recovered secrets and the record's digest.
    pub quote: Quote,
}

/// A holder in a deal bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// Its admission.
    pub admission: Admission,
    /// Its newest evidence.
    pub evidence: SignedEvidence,
}

/// Everything that a dealer must check before it deals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DealBundle {
    /// The mesh's genesis: its digest is what the dealer pins.
    pub genesis: SignedGenesis,
    /// The epochs that the evidence below is of, oldest first.
    pub epochs: Vec<SignedEpoch>,
    /// The group.
    pub group: GroupId,
    /// Its generation.
    pub generation: Generation,
    /// Its holders, in the order of the share indexes.
    pub holders: Vec<Holder>,
    /// The coordinator, for a client that asks it to deal.
    pub coordinator: Holder,
    /// The head that the new one follows.
    pub previous: Option<SignedHead>,
}

/// A dealt credential: all but the owner's signature. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Bytes of the head, to be signed.
    #[serde(with = "serde_bytes")]
    pub head: Vec<u8>,
    /// The group.
    pub group: GroupId,
    /// Its generation.
    pub generation: Generation,
    /// Commitments to the polynomial.
    pub commitments: Vec<Commitment>,
    /// Sealed shares in the order of their indexes.
    pub sealed: Vec<ByteBuf>,
    /// Pieces of the encrypted payload.
    pub pieces: Vec<ByteBuf>,
}

/// What a reader shows: its evidence, and the epoch of it for a receiver that has not heard that one yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shown {
    /// The epoch.
    pub epoch: SignedEpoch,
    /// The evidence.
    pub evidence: SignedEvidence,
}

/// A credential on its way to the coordinator that is to deal it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entrusting {
    /// The order.
    pub order: PutOrder,
    /// The group that the client was shown.
    pub group: GroupId,
    /// Round of the coordinator's evidence whose session key it is sealed to.
    pub round: Round,
    /// The credential, sealed to that key.
    #[serde(with = "serde_bytes")]
    pub sealed: Vec<u8>,
}

/// A holder's word that a share is checked and flushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutReceipt {
    /// The holder.
    pub holder: HostId,
    /// Index of the share.
    pub index: ShareIndex,
    /// Digest of the head.
    pub head: Digest,
    /// The group.
    pub group: GroupId,
    /// Its generation.
    pub generation: Generation,
    /// Digest of the commitments.
    pub commitments: Digest,
    /// Signature of the holder's transport key.
    pub signature: Ed25519Signature,
}

/// A message. The order of the variants is the wire's: new ones go to the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Message {
    /// Joiner → coordinator.
    EnrolHello(EnrolHello),
    /// Coordinator → joiner: one blob per EK, in the order in which the joiner showed them.
    EnrolChallenge {
        /// The blobs.
        blobs: Vec<CredentialBlob>,
    },
    /// Joiner → coordinator.
    EnrolAnswer(EnrolAnswer),
    /// Coordinator → joiner: admitted; the records can be pulled.
    EnrolAdmitted,
    /// Coordinator → joiner.
    EnrolRefused(Refused),

    /// Coordinator → all, each epoch.
    EpochAnnounce {
        /// The epoch.
        epoch: SignedEpoch,
        /// Index of the newest record.
        records: u64,
        /// Who is where.
        presence: Vec<Presence>,
    },
    /// Member → coordinator, each epoch.
    EvidenceAnnounce {
        /// Its evidence.
        evidence: SignedEvidence,
        /// Where it listens.
        address: Address,
    },
    /// Member → coordinator: records behind this index, please.
    RecordsPull {
        /// Index of the newest record that the asker has.
        after: u64,
    },
    /// Coordinator → member.
    RecordsPage {
        /// Entries in order.
        entries: Vec<LogEntry>,
        /// Index of the newest record.
        newest: u64,
    },

    /// Host → coordinator: where may this order go?
    PutBegin(PutOrder),
    /// Coordinator → host.
    PutBundle {
        /// The request.
        request: RequestId,
        /// The bundle.
        bundle: Box<DealBundle>,
    },
    /// Host → coordinator: deal this credential for a thin client.
    Entrust(Entrusting),
    /// Coordinator → host.
    Entrusted {
        /// The request.
        request: RequestId,
        /// The dealt credential.
        package: Box<Package>,
    },
    /// Host → holder: check and store this share.
    ShareStore {
        /// The request.
        request: RequestId,
        /// The head.
        head: SignedHead,
        /// The group.
        group: GroupId,
        /// Its generation.
        generation: Generation,
        /// Index of the share.
        index: ShareIndex,
        /// The share, sealed to the holder.
        #[serde(with = "serde_bytes")]
        sealed: Vec<u8>,
        /// Commitments to the polynomial.
        commitments: Vec<Commitment>,
        /// The encrypted payload.
        pieces: Vec<ByteBuf>,
    },
    /// Holder → host.
    ShareStored {
        /// The request.
        request: RequestId,
        /// The receipt.
        receipt: PutReceipt,
    },
    /// Host → coordinator: enough holders have it, record the head.
    PutRecord {
        /// The request.
        request: RequestId,
        /// The head.
        head: SignedHead,
        /// The receipts.
        receipts: Vec<PutReceipt>,
    },
    /// Coordinator → host.
    PutRecorded {
        /// The request.
        request: RequestId,
        /// Index of the record.
        record: u64,
    },

    /// Instance → coordinator: where are the shares?
    MapRequest {
        /// The request.
        request: RequestId,
        /// The credential.
        id: CredentialId,
        /// The instance's evidence.
        shown: Box<Shown>,
    },
    /// Coordinator → instance.
    MapReply {
        /// The request.
        request: RequestId,
        /// The shard map as an age file.
        #[serde(with = "serde_bytes")]
        file: Vec<u8>,
    },
    /// Owner's host → coordinator: the map for the owner's own recipients.
    OwnerMapRequest {
        /// The request.
        request: RequestId,
        /// The credential.
        id: CredentialId,
    },
    /// Instance → holder.
    ShareRequest {
        /// The request.
        request: RequestId,
        /// The credential.
        id: CredentialId,
        /// The group's generation.
        generation: Generation,
        /// The instance's evidence.
        shown: Box<Shown>,
    },
    /// Holder → instance.
    ShareReply {
        /// The request.
        request: RequestId,
        /// The highest head that the holder has.
        head: SignedHead,
        /// Index of the share.
        index: ShareIndex,
        /// Commitments to the polynomial.
        commitments: Vec<Commitment>,
        /// The share, sealed to the session key in the evidence.
        #[serde(with = "serde_bytes")]
        sealed: Vec<u8>,
    },
    /// Instance → holder: the encrypted payload that this head names.
    PayloadRequest {
        /// The request.
        request: RequestId,
        /// The credential.
        id: CredentialId,
        /// Digest of the head.
        head: Digest,
    },
    /// Holder → instance.
    PayloadReply {
        /// The request.
        request: RequestId,
        /// The pieces.
        pieces: Vec<ByteBuf>,
    },
    /// Any → asker: a request was refused.
    Refusal {
        /// The request.
        request: RequestId,
        /// Why.
        refused: Refused,
    },
}

impl Message {
    /// Whether somebody who is not a member may send or receive it.
    pub fn is_enrolment(&self) -> bool {
        matches!(
            self,
            Self::EnrolHello(_)
                | Self::EnrolChallenge { .. }
                | Self::EnrolAnswer(_)
                | Self::EnrolAdmitted
                | Self::EnrolRefused(_)
        )
    }

    /// Its name, for logs and traces.
    pub fn name(&self) -> &'static str {
        match self {
            Self::EnrolHello(_) => "enrol-hello",
            Self::EnrolChallenge { .. } => "enrol-challenge",
            Self::EnrolAnswer(_) => "enrol-answer",
            Self::EnrolAdmitted => "enrol-admitted",
            Self::EnrolRefused(_) => "enrol-refused",
            Self::EpochAnnounce { .. } => "epoch-announce",
            Self::EvidenceAnnounce { .. } => "evidence-announce",
            Self::RecordsPull { .. } => "records-pull",
            Self::RecordsPage { .. } => "records-page",
            Self::PutBegin(_) => "put-begin",
            Self::PutBundle { .. } => "put-bundle",
            Self::Entrust(_) => "entrust",
            Self::Entrusted { .. } => "entrusted",
            Self::ShareStore { .. } => "share-store",
            Self::ShareStored { .. } => "share-stored",
            Self::PutRecord { .. } => "put-record",
            Self::PutRecorded { .. } => "put-recorded",
            Self::MapRequest { .. } => "map-request",
            Self::MapReply { .. } => "map-reply",
            Self::OwnerMapRequest { .. } => "owner-map-request",
            Self::ShareRequest { .. } => "share-request",
            Self::ShareReply { .. } => "share-reply",
            Self::PayloadRequest { .. } => "payload-request",
            Self::PayloadReply { .. } => "payload-reply",
            Self::Refusal { .. } => "refusal",
        }
    }

    /// Lists that no later check bounds by itself.
    pub(super) fn check_bounds(&self) -> Result<(), DecodeError> {
        let bound = |name, length: usize, max: usize| {
            if length > max { Err(DecodeError::Bound(name)) } else { Ok(()) }
        };
        match self {
            Self::EnrolHello(hello) if !hello.keys.within_bounds() => Err(DecodeError::Bound("joiner keys")),
            Self::EnrolChallenge { blobs } => bound("blobs", blobs.len(), EKS_MAX),
            Self::EpochAnnounce { presence, .. } => {
                bound("presence", presence.len(), MEMBERS_MAX)?;
                presence.iter().try_for_each(|one| bound("address", one.address.0.len(), ADDRESS_MAX))
            }
            Self::EvidenceAnnounce { address, .. } => bound("address", address.0.len(), ADDRESS_MAX),
            Self::RecordsPage { entries, .. } => {
                bound("entries", entries.len(), PAGE_ENTRIES_MAX)?;
                entries.iter().try_for_each(|entry| bound("entry", entry.command.len(), ENTRY_MAX))
            }
            Self::PutBegin(order) | Self::Entrust(Entrusting { order, .. }) if !order.within_bounds() => {
                Err(DecodeError::Bound("order"))
            }
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
