//! The messages between hosts. Each goes one way; an answer is a message of its own that repeats the request's id.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::attest::enroll::JoinerKeys;
use crate::attest::evidence::SignedEvidence;
use crate::attest::quote::Quote;
use crate::attest::tpm::CredentialBlob;
use crate::beacon::SignedBeacon;
use crate::cms::command::Founding;
use crate::cms::election::{Ballot, LogEntry};
use crate::cms::members::LeavingWord;
use crate::cms::seating::{SeatProof, Seating};
use crate::cms::version::VersionWord;
use crate::credential::dealing::KeyDeal;
use crate::credential::head::SignedHead;
use crate::credential::receipt::PutReceipt;
use crate::credential::split::PutOrder;
use crate::error::Refused;
use crate::founding::{Founder, Vote};
use crate::genesis::SignedGenesis;
use crate::gossip::News;
use crate::header::SignedHeader;
use crate::membership::{Admission, MemberRecord};
use crate::signing::Topic;
use crate::ticket::{Contact, Pins, SignedTicket};
use crate::types::{
    BlsSignature, Commitment, CredentialId, Digest, Ed25519Signature, Generation, GroupId, HostId, HpkePublic,
    RequestId, Round, ShareIndex, TransportKey,
};
use crate::whereabouts::Whereabouts;

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

/// One line of the announcement: how a member stands and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Presence {
    /// The member.
    pub host: HostId,
    /// How it stands with the coordinator.
    pub standing: Standing,
    /// Its latest word for where it is.
    pub whereabouts: Option<Whereabouts>,
}

/// A joiner's first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolHello {
    /// The ticket.
    pub ticket: SignedTicket,
    /// Names this joining: a refusal of an earlier one is not taken for its own.
    pub request: RequestId,
    /// The joiner's keys.
    pub keys: JoinerKeys,
    /// Where it listens.
    pub address: Address,
}

/// A joiner's answer to its challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolAnswer {
    /// The joining.
    pub request: RequestId,
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
    pub epochs: Vec<SignedBeacon>,
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
    pub epoch: SignedBeacon,
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

/// Where may an order go?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placing {
    /// The order.
    pub order: PutOrder,
    /// Holders that failed the host that asks a moment ago, the latest last; at most [`crate::limits::SHARES_MAX`].
    pub without: Vec<HostId>,
}

/// A message. The order of the variants is the wire's: new ones go to the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Message {
    /// Joiner → any host.
    EnrolHello(EnrolHello),
    /// Any host → joiner: whom to ask.
    EnrolCommittee {
        /// The mesh and its key.
        pins: Pins,
        /// The committee: each checks the joiner by itself.
        committee: Vec<Contact>,
    },
    /// Committee member → joiner: one blob per EK, in the order in which the joiner showed them.
    EnrolChallenge {
        /// The blobs.
        blobs: Vec<CredentialBlob>,
    },
    /// Joiner → committee member.
    EnrolAnswer(EnrolAnswer),
    /// Committee member → joiner: its part of the admission.
    EnrolPart {
        /// Which shares of the mesh key sign.
        key_epoch: u64,
        /// Parts that make a signature.
        t: u8,
        /// Index of the member's share.
        index: ShareIndex,
        /// The part.
        part: BlsSignature,
    },
    /// Joiner → committee: enough parts, record it.
    EnrolAdmit {
        /// The joining.
        request: RequestId,
        /// The record.
        record: Box<MemberRecord>,
        /// The parts.
        parts: Vec<(ShareIndex, BlsSignature)>,
    },
    /// Any host → joiner: admitted; the records can be pulled.
    EnrolAdmitted,
    /// Any host → joiner.
    EnrolRefused {
        /// The joining.
        request: RequestId,
        /// Why.
        refused: Refused,
    },
    /// Gathering host → joiner: the mesh is forming.
    EnrolForming {
        /// What the mesh is.
        genesis: SignedGenesis,
        /// Hosts that have come, the gathering one included.
        known: u8,
    },
    /// Gathering host → founders: there are three.
    FoundingCall {
        /// Names the attempt.
        attempt: RequestId,
        /// The three.
        founders: Vec<Founder>,
    },
    /// Founder → founder.
    FoundingChallenge {
        /// The attempt.
        attempt: RequestId,
        /// One blob per EK.
        blobs: Vec<CredentialBlob>,
    },
    /// Founder → founder.
    FoundingAnswer {
        /// The attempt.
        attempt: RequestId,
        /// The session key to which deals are sealed.
        session: HpkePublic,
        /// The quote over the secrets, the attempt, the record and that key.
        quote: Quote,
    },
    /// Founder → founder.
    FoundingDeal {
        /// The attempt.
        attempt: RequestId,
        /// The deal.
        deal: KeyDeal,
        /// The dealer's signature over the attempt and the deal's digest.
        signature: Ed25519Signature,
    },
    /// Founder → founder.
    FoundingVote {
        /// The attempt.
        attempt: RequestId,
        /// The vote.
        vote: Vote,
    },
    /// Founded host → founder that missed the end.
    FoundingDone(Box<Founding>),

    /// The leader → all; a voter → who asks it for records.
    Announce {
        /// The term.
        term: u64,
        /// Who leads, as far as the sender knows.
        leader: Option<TransportKey>,
        /// The newest beacon.
        beacon: Option<SignedBeacon>,
        /// The newest header.
        header: Option<SignedHeader>,
        /// Index of the newest committed record.
        records: u64,
        /// Who is where; none where only the beacon is news.
        presence: Option<Vec<Presence>>,
    },
    /// Voter → voter.
    Ballot(Ballot),
    /// Holder of a share of the mesh key → the others: its part of this round's signature.
    Part {
        /// Which shares sign.
        key_epoch: u64,
        /// What is signed.
        topic: Topic,
        /// Index of the share.
        index: ShareIndex,
        /// The part.
        part: BlsSignature,
    },
    /// Member → committee, each epoch.
    EvidenceAnnounce {
        /// Its evidence.
        evidence: SignedEvidence,
        /// Where it listens.
        whereabouts: Whereabouts,
        /// Newest version of the records that it reads.
        word: VersionWord,
        /// Whether it takes no new share: its disk is nearly full, or it holds as many as it may.
        full: bool,
    },
    /// Member → member: records behind this index, please.
    RecordsPull {
        /// Index of the newest record that the asker has.
        after: u64,
    },
    /// The answer.
    RecordsPage {
        /// Entries in order, all committed.
        entries: Vec<LogEntry>,
        /// Index of the newest committed record.
        newest: u64,
    },
    /// Holder of an old share → those who are to hold the new ones.
    KeyDealt {
        /// Names the dealing.
        ceremony: Digest,
        /// The deal.
        deal: KeyDeal,
        /// Its dealer's signature.
        signature: Ed25519Signature,
    },
    /// Receiver → leader: a sub-share is checked and flushed.
    KeyHeld {
        /// Names the dealing.
        ceremony: Digest,
        /// The dealer's index.
        dealer: ShareIndex,
        /// Digest of the deal.
        deal: Digest,
        /// Its dealer's signature.
        signature: Ed25519Signature,
        /// The receiver's: it stands in the record.
        held: Ed25519Signature,
    },
    /// Member → holder of a share of the mesh key: unlock my period key.
    UnlockRequest {
        /// The unlock number.
        number: u64,
        /// The member's evidence: the part is sealed to its session key.
        shown: Box<Shown>,
    },
    /// Holder of a share → member.
    UnlockPart {
        /// The unlock number.
        number: u64,
        /// Round of the evidence.
        round: Round,
        /// Which shares sign.
        key_epoch: u64,
        /// Index of the share.
        index: ShareIndex,
        /// The part, sealed.
        #[serde(with = "serde_bytes")]
        sealed: Vec<u8>,
    },

    /// Host → coordinator: where may this order go?
    PutBegin(Placing),
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
    /// Voter → host: it has applied the record.
    Recorded {
        /// The request.
        request: RequestId,
        /// Digest of the head; zeros where it is of none.
        head: Digest,
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
    /// Host → leader: record this head, which changes nothing of the value.
    ChangeRecord {
        /// The request.
        request: RequestId,
        /// The head.
        head: SignedHead,
    },
    /// Host → holder: say when the record of this head binds you, also after a crash.
    BoundAsk {
        /// The request.
        request: RequestId,
        /// The credential.
        id: CredentialId,
        /// Digest of the head.
        head: Digest,
    },
    /// Holder → host: it does.
    Bound {
        /// The request.
        request: RequestId,
        /// Digest of the head.
        head: Digest,
    },
    /// Host → leader: the newest head of this credential.
    HeadRequest {
        /// The request.
        request: RequestId,
        /// The credential.
        id: CredentialId,
    },
    /// Leader → host.
    HeadReply {
        /// The request.
        request: RequestId,
        /// The head.
        head: SignedHead,
        /// Index of its record.
        record: u64,
    },
    /// Host → leader: this host leaves.
    LeaveRequest {
        /// The request.
        request: RequestId,
        /// Its word.
        word: LeavingWord,
    },
    /// Voter → somebody who votes without a seat.
    Unseated(Box<Seating>),
    /// Member → somebody who asked for records that it cut off: the state is there, under this header.
    StateOffer(Box<SignedHeader>),
    /// Member → member: rows of the state, please.
    StatePull {
        /// The record behind which the state stands.
        record: u64,
        /// Number of the first row.
        number: u64,
    },
    /// The answer.
    StatePage {
        /// The record behind which the state stands.
        record: u64,
        /// Number of the first row.
        number: u64,
        /// The rows; none where there is none of that number.
        rows: Vec<ByteBuf>,
    },
    /// Anybody → everybody, by gossip.
    News(News),
    /// Voter → voter: the beacon and header of this round, please.
    EpochPull,
    /// Member → leader: all its shards lie under its next unlock.
    Rewrapped {
        /// Number of that unlock.
        number: u64,
        /// Signature of its transport key.
        signature: Ed25519Signature,
    },
    /// Voter → somebody who votes under a seat that it does not know: show it, please.
    SeatPull,
    /// The answer.
    SeatProof(Box<SeatProof>),
    /// Host → voter: say when this head is recorded, as far as you know.
    RecordedAsk {
        /// The request.
        request: RequestId,
        /// Digest of the head.
        head: Digest,
    },
}
