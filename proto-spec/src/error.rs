//! Errors, sorted by whose fault it is. All are exact and comparable, so that a test asserts the variant.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::types::{CredentialId, HostId, Round};

/// The bytes are not a message of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Longer than the bound for its kind; nothing was parsed.
    #[error("{got} bytes, at most {max} are taken")]
    TooLong {
        /// Bytes that came.
        got: usize,
        /// The bound.
        max: usize,
    },
    /// Not CBOR, or not of the expected shape.
    #[error("malformed")]
    Malformed,
    /// CBOR of the right shape that our encoder would write otherwise.
    #[error("not in canonical form")]
    NotCanonical,
    /// A version of the wire that this binary does not speak.
    #[error("wire version {0} is not spoken here")]
    Version(u16),
    /// A message of another mesh.
    #[error("of another mesh")]
    OtherMesh,
    /// A list or text inside is longer than its bound.
    #[error("a field is beyond its bound: {0}")]
    Bound(&'static str),
}

/// A peer broke the protocol: its connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Misbehaved {
    /// It sent bytes that do not decode.
    #[error("sent bytes that do not decode: {0}")]
    Undecodable(#[from] DecodeError),
    /// It is not a member and sent something else than an enrolment.
    #[error("is not a member and did not ask to enrol")]
    NotMember,
    /// It spoke as a member of the committee, and is not.
    #[error("spoke as a member of the committee and is not")]
    NotCommittee,
    /// It sent what no voter sends.
    #[error("sent what no voter sends")]
    Ballot,
    /// It dealt shares of the mesh key that do not hold.
    #[error("dealt shares of the mesh key that do not hold")]
    BadDeal,
    /// It sent evidence or a receipt in another host's name.
    #[error("spoke in another host's name")]
    WrongName,
    /// It sent a beacon or a header whose signature does not hold.
    #[error("sent a beacon or a header that is not signed by the mesh key")]
    ForgedEpoch,
    /// It told of a host's address what that host did not sign.
    #[error("told of an address that its host did not sign")]
    ForgedAddress,
    /// It sent records that do not follow on those that are here, or do not apply.
    #[error("sent records that do not apply")]
    BadRecords,
}

/// The checks whose failure refuses a request. Each refusal names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Check {
    /// The ticket's form or signature.
    TicketSignature,
    /// The ticket is of another mesh.
    TicketMesh,
    /// The ticket's date is past.
    TicketExpired,
    /// The ticket was used by another machine.
    TicketUsed,
    /// The ticket names another EK.
    TicketEk,
    /// No EK, too many, or an EK's public area is not that of an endorsement key.
    EkPublic,
    /// An EK certificate does not parse or is not for that EK.
    EkCertificate,
    /// No EK certificate leads to a root of the genesis, and no EK is on its list.
    EkUntrusted,
    /// An EK belongs to a member already.
    EkKnown,
    /// The name belongs to another member.
    NameTaken,
    /// The AK is not a restricted signing key that was made in the TPM and cannot leave it.
    AkAttributes,
    /// The vote key's proof of possession.
    VoteKey,
    /// The answer to the enrolment challenge.
    Challenge,
    /// The transport key is not that of the connection.
    Transport,
    /// The subject is not a member.
    Membership,
    /// The subject's role does not fit.
    Role,
    /// No epoch of the coordinator is current here: this host refuses everybody.
    OwnEpoch,
    /// The evidence's epoch is not current.
    EvidenceStale,
    /// A signature of the evidence.
    EvidenceSignature,
    /// The quote's content is not what the evidence says.
    Quote,
    /// A PCR has another value than the policy wants.
    Pcr(u8),
    /// No current evidence is known.
    EvidenceMissing,
    /// The head's form or signature.
    HeadSignature,
    /// A field of the head.
    HeadForm,
    /// A higher head is known, or the head does not follow on the last.
    HeadOrder,
    /// The credential's policy does not name the reader.
    Policy,
    /// The share does not fit its commitments or its head.
    Share,
    /// The payload does not fit its digest.
    Payload,
    /// The first commitment stands under another credential.
    CommitmentReused,
    /// The group of the request is not in the records.
    Group,
    /// The receipts are too few or do not fit.
    Receipts,
    /// The spread over domains cannot be met with the hosts that are there.
    Spread,
    /// A bound of `limits` is reached.
    Capacity,
    /// A record with the same request id, or the state, rules it out.
    Record,
    /// No such credential.
    Unknown,
    /// The host is starting, behind the records, or its disk failed.
    NotReady,
    /// The request reached a host that does not lead.
    NotLeader,
    /// A dealer's part of a joint dealing.
    Deal,
    /// The mesh is still forming.
    Forming,
    /// The host's period key is not unlocked yet.
    Locked,
    /// The host lags behind the header.
    Behind,
    /// The put took longer than its holders keep what is not recorded.
    Expired,
    /// The credential has another version than the one that was to be replaced.
    Version,
    /// What cannot be undone would leave too few: shares of a credential, or hosts of the mesh.
    Floor,
    /// Two deals of one dealer in one dealing.
    DealTwice,
}

impl Check {
    /// The name that stands in messages, JSON and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TicketSignature => "ticket-signature",
            Self::TicketMesh => "ticket-mesh",
            Self::TicketExpired => "ticket-expired",
            Self::TicketUsed => "ticket-used",
            Self::TicketEk => "ticket-ek",
            Self::EkPublic => "ek-public",
            Self::EkCertificate => "ek-certificate",
            Self::EkUntrusted => "ek-untrusted",
            Self::EkKnown => "ek-known",
            Self::NameTaken => "name-taken",
            Self::AkAttributes => "ak-attributes",
            Self::VoteKey => "vote-key",
            Self::Challenge => "challenge",
            Self::Transport => "transport",
            Self::Membership => "membership",
            Self::Role => "role",
            Self::OwnEpoch => "own-epoch",
            Self::EvidenceStale => "evidence-stale",
            Self::EvidenceSignature => "evidence-signature",
            Self::Quote => "quote",
            Self::Pcr(_) => "measurement",
            Self::EvidenceMissing => "evidence-missing",
            Self::HeadSignature => "head-signature",
            Self::HeadForm => "head-form",
            Self::HeadOrder => "head-order",
            Self::Policy => "policy",
            Self::Share => "share",
            Self::Payload => "payload",
            Self::CommitmentReused => "commitment-reused",
            Self::Group => "group",
            Self::Receipts => "receipts",
            Self::Spread => "spread",
            Self::Capacity => "capacity",
            Self::Record => "record",
            Self::Unknown => "unknown",
            Self::NotReady => "not-ready",
            Self::NotLeader => "not-leader",
            Self::Deal => "deal",
            Self::Forming => "forming",
            Self::Locked => "locked",
            Self::Behind => "behind",
            Self::Expired => "expired",
            Self::Version => "version",
            Self::Floor => "floor",
            Self::DealTwice => "deal-twice",
        }
    }

    /// Whether the refusal passes by itself: somebody is starting, or a step behind. Worth another try.
    pub const fn is_passing(self) -> bool {
        matches!(
            self,
            Self::NotReady
                | Self::OwnEpoch
                | Self::EvidenceMissing
                | Self::EvidenceStale
                | Self::NotLeader
                | Self::Locked
                | Self::Behind
        )
    }

    /// What the person at the other end can do about it.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::TicketSignature => "ask an operator of the domain for a new ticket",
            Self::TicketMesh => "this ticket belongs to another mesh",
            Self::TicketExpired => "ask an operator of the domain for a new ticket",
            Self::TicketUsed => "a ticket admits one machine; ask for one of its own",
            Self::TicketEk => "the ticket was issued for another machine's TPM",
            Self::EkPublic => "the TPM shows no usable endorsement key",
            Self::EkCertificate => "the TPM's endorsement certificate is damaged or not its own",
            Self::EkUntrusted => {
                "the genesis must name the certificate that signed the TPM's (init --ek-root) or its EK (init --ek-hash)"
            }
            Self::EkKnown => {
                "this TPM is a member already; if it lost its state, give it a ticket that names it (invite --ek-hash), \
                 for the same role, domain, region and zone"
            }
            Self::NameTaken => "choose another name in the ticket",
            Self::AkAttributes => "the attestation key was not made by this daemon",
            Self::VoteKey | Self::Transport => "the joiner's keys do not belong together; start its daemon afresh",
            Self::Challenge => "the TPM did not answer its challenge; try to join again",
            Self::Membership => "enrol the machine first (vouchsafe join)",
            Self::Role => "this act needs another role in the ticket",
            Self::OwnEpoch => "this host hears no current epoch: check its network and its clock",
            Self::EvidenceStale => "wait for the next epoch and try again; check the clock",
            Self::EvidenceSignature | Self::Quote => {
                "the evidence does not hold; look at that machine's daemon and TPM"
            }
            Self::Pcr(_) => {
                "the machine's measurements changed since it was enrolled; enrol it again if the change was yours"
            }
            Self::EvidenceMissing => {
                "too few hosts have shown evidence of this epoch yet; see `vouchsafe hosts`, try again"
            }
            Self::HeadSignature => "the head is not signed by the client's key",
            Self::HeadForm => "the head's fields are beyond what the mesh takes",
            Self::HeadOrder => "somebody put a newer version meanwhile; look with `vouchsafe show` and try again",
            Self::Policy => "the credential's owner has not allowed this reader (put --allow)",
            Self::Share | Self::Payload => "the dealer's data do not fit together; put again",
            Self::CommitmentReused => "the same secret scalar was dealt before; put again",
            Self::Group => "the shard group changed meanwhile; put again",
            Self::Receipts => "too few holders stored their share; try again",
            Self::Spread => "enrol hosts in more domains, or ask for other -k, -n or --tolerate-domains",
            Self::Capacity => {
                "a bound is reached, or its disk is nearly full: make room there, or wait ten epochs for puts that died"
            }
            Self::Record => "the records do not allow it",
            Self::Unknown => "see `vouchsafe ls`",
            Self::NotReady => "the host is starting; try again in a few seconds",
            Self::NotLeader => "another host leads; try again",
            Self::Deal => "a host dealt shares of the mesh key that do not hold; the log names it",
            Self::Forming => "the mesh is forming: invite hosts until there are three",
            Self::Locked => "the host waits for its peers to unlock it; try again in a few seconds",
            Self::Behind => "the host catches up with the records; try again in a few seconds",
            Self::Expired => "the put took longer than ten epochs, and its holders made room; put again",
            Self::DealTwice => "a host dealt twice in one dealing of the mesh key; the log names it",
            Self::Floor => {
                "the mesh needs three hosts, and each credential one holder more than read it: put what this host holds anew, \
                 or enrol another host first"
            }
            Self::Version => "somebody put another version meanwhile; look with `vouchsafe show` and decide again",
        }
    }
}

/// Whom a refusal is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Subject {
    /// The request itself.
    Request,
    /// A host or instance.
    Host(HostId),
    /// A credential.
    Credential(CredentialId),
}

/// A request was refused: by which check, about whom, in which epoch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Error)]
#[serde(deny_unknown_fields)]
#[error("refused by check {} ({})", check.name(), check.hint())]
pub struct Refused {
    /// The check that failed.
    pub check: Check,
    /// Whom it is about.
    pub subject: Subject,
    /// The newest epoch known to the refusing host (zero: none).
    pub round: Round,
    /// Names this refusal in the log of the host that refused.
    pub refusal_id: u64,
}

impl Refused {
    /// A refusal without an id and an epoch yet: `Host` adds both before it leaves.
    pub fn new(check: Check, subject: Subject) -> Self {
        Self { check, subject, round: Round(0), refusal_id: 0 }
    }
}

/// A local request did not succeed. What the command line turns into words and an exit code.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    /// A check refused it, here or at another host.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// There is no such credential.
    #[error("no such credential")]
    NotFound,
    /// Fewer holders answered than are needed.
    #[error("{got} of the {needed} holders that are needed answered")]
    TooFewHolders {
        /// Good answers.
        got: u8,
        /// Answers that are needed.
        needed: u8,
        /// Who did not answer, or refused.
        missing: Vec<HostId>,
    },
    /// Nobody leads, or the leader did not answer.
    #[error("the committee's leader does not answer")]
    NoLeader,
    /// The daemon belongs to no mesh yet, or belongs to one already.
    #[error("{0}")]
    Membership(&'static str),
    /// As many requests are open here as may be.
    #[error("too many requests are open")]
    Busy,
    /// This host cannot do it: its own disk, TPM or a bound.
    #[error("{0}")]
    Local(&'static str),
}

/// A failure of the machine's own parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LocalFault {
    /// The disk refused a write: nothing is acknowledged any more in that lane.
    #[error("a write to disk failed")]
    Disk,
    /// The TPM did not do what was asked.
    #[error("the TPM failed")]
    Tpm,
    /// What was saved does not read back.
    #[error("saved state does not read back")]
    Saved,
}
