//! What comes out of `Host::handle`, in order.

use crate::attest::evidence::SignedEvidence;
use crate::attest::tpm::CredentialBlob;
use crate::beacon::SignedBeacon;
use crate::cms::credentials::Credential;
use crate::cms::groups::Group;
use crate::credential::head::SignedHead;
use crate::error::{Check, Failure, LocalFault, Misbehaved, Refused};
use crate::genesis::SignedGenesis;
use crate::gossip::Verdict;
use crate::membership::MemberRecord;
use crate::ticket::{Contact, Pins};
use crate::types::{CredentialId, Digest, GroupId, HostId, Round, SecretBytes, TransportKey};
use crate::wire::{Address, DealBundle, Message, Package, Standing};

use super::event::{ActionId, LocalId};

/// The order in which things must happen: a `Persist` holds back what follows it in its own lane, across calls, and
/// nothing in any other lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Needs no write.
    Direct,
    /// The record log, and whatever speaks of records.
    Records,
    /// Epochs and evidence.
    Ring,
    /// The slices of a snapshot.
    State,
    /// Shares of one group.
    Group(GroupId),
}

/// Where a value rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// What this host pins: one row.
    Membership,
    /// The record log: index (64 bits, big-endian) → entry.
    Records,
    /// The newest snapshot, and the one before: slot ‖ number (64 bits, big-endian) → row; and which of them is whole.
    State,
    /// What a voter must not forget: one row.
    Raft,
    /// A mesh that is forming: one row.
    Forming,
    /// Shares of the mesh key: key epoch ‖ digest of the dealing → sealed share.
    Keys,
    /// What this member signed for a ticket: serial → digest of the record.
    Tickets,
    /// The newest beacon, and the header that confirmed this host's records last: a row for each.
    Epoch,
    /// Shares: credential ‖ head digest → stored share.
    Shares,
    /// Payloads: credential ‖ head digest ‖ piece (16 bits, big-endian) → piece.
    Payloads,
}

/// A change of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The table.
    pub table: Table,
    /// The key.
    pub key: Vec<u8>,
    /// The new value, below 64 KiB; `None` removes the row.
    pub value: Option<Vec<u8>>,
}

/// What a TPM is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TpmRequest {
    /// Read these PCRs of the SHA-256 bank.
    ReadPcrs(Vec<u8>),
    /// Quote these PCRs over this qualifying data.
    Quote {
        /// PCR numbers, ascending.
        pcrs: Vec<u8>,
        /// Qualifying data.
        qualifying: Digest,
    },
    /// Activate these credentials, one per EK.
    Activate(Vec<CredentialBlob>),
}

/// Something to do.
#[derive(Debug)]
pub enum Action {
    /// Write all of these or none, durably, before anything that follows in the lane.
    Persist {
        /// The lane.
        lane: Lane,
        /// The rows.
        writes: Vec<Write>,
    },
    /// Say, in its turn in the lane, that all before it is durable.
    Confirm {
        /// The lane.
        lane: Lane,
        /// Comes back.
        id: ActionId,
    },
    /// Send a message; to the host's own key: hand it back as an event.
    Send {
        /// The lane.
        lane: Lane,
        /// The peer.
        to: TransportKey,
        /// Where it may be, if it is not connected.
        address: Address,
        /// The message.
        message: Box<Message>,
    },
    /// Spread a message to everybody.
    Publish {
        /// The message.
        message: Box<Message>,
    },
    /// Say whether a message that was passed on goes further.
    Judge {
        /// Which.
        id: ActionId,
        /// What becomes of it.
        verdict: Verdict,
    },
    /// Exchange news with these, and with nobody else.
    Circle {
        /// All of them.
        members: Vec<TransportKey>,
        /// To these a connection is held, wherever they are.
        near: Vec<(TransportKey, Address)>,
    },
    /// Ask the TPM.
    Tpm {
        /// Comes back with the answer.
        id: ActionId,
        /// The request.
        request: TpmRequest,
    },
    /// Read blobs.
    LoadBlobs {
        /// Comes back with the bytes.
        id: ActionId,
        /// Keys in the table of payloads.
        keys: Vec<Vec<u8>>,
    },
    /// Seal a shard map as an age file.
    SealMap {
        /// Comes back with the file.
        id: ActionId,
        /// age recipients.
        recipients: Vec<String>,
        /// The map.
        plaintext: Vec<u8>,
    },
    /// Open a shard map with this host's map identity.
    OpenMap {
        /// Comes back with the plaintext.
        id: ActionId,
        /// The age file.
        file: Vec<u8>,
    },
    /// Answer a local request.
    Reply {
        /// The lane.
        lane: Lane,
        /// Which.
        id: LocalId,
        /// The answer.
        reply: Result<LocalReply, Failure>,
    },
    /// Close a peer's connection.
    Disconnect {
        /// The peer.
        peer: TransportKey,
        /// Why.
        why: Misbehaved,
    },
    /// Something for the log.
    Report(Report),
}

/// What stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// This host belongs to a mesh now.
    Joined,
    /// An epoch began.
    Epoch(Round),
    /// Somebody was refused here.
    Refused(Refused),
    /// A part of this machine failed.
    Fault(LocalFault),
    /// A member was admitted.
    Admitted(HostId),
    /// A credential's head was recorded.
    Recorded(CredentialId),
    /// The mesh was founded, with this host.
    Founded,
    /// This host leads from this term on.
    Leads(u64),
    /// A host dealt a share of the mesh key that does not hold.
    BadDeal(HostId, Check),
    /// The shares of the mesh key changed: which dealing of it signs now.
    KeyDealt(u64),
    /// A host left the mesh.
    Left(HostId),
    /// The records are read by this version from here on.
    VersionRaised(u16),
    /// The mesh went on to this version, which this binary does not know: it neither applies, votes, signs nor releases.
    Outgrown(u16),
    /// The records up to this one are not those that the mesh key signed: they are dropped, and pulled anew from others.
    Doubted(u64),
    /// A header of this round contradicts another one that holds, or the records here: somebody with a seat lied to a part of
    /// the committee. Nothing is erased any more.
    Split(Round),
    /// From the first to the last of these rounds the mesh signed none.
    Skipped(Round, Round),
    /// The state behind this record is on disk, and the log before it was cut.
    Snapshot(u64),
    /// Its peers unlocked this host.
    Unlocked,
    /// A record was refused by the state: it changed nothing.
    NotApplied(u64, Check),
}

/// How this host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusReply {
    /// Its own record, once it is a member.
    pub member: Option<MemberRecord>,
    /// The mesh, once it belongs to one.
    pub pins: Option<Pins>,
    /// Name of the mesh.
    pub mesh_name: Option<String>,
    /// Whether it leads.
    pub coordinates: bool,
    /// Name of the host that leads, where it is known.
    pub leader: Option<String>,
    /// The term.
    pub term: Option<u64>,
    /// Names of the committee.
    pub committee: Vec<String>,
    /// The shares of the mesh key.
    pub key: Option<KeyLine>,
    /// While the mesh is forming: hosts that have come.
    pub forming: Option<u8>,
    /// Whether it is joining now.
    pub joining: bool,
    /// The version that the mesh went on to and this binary does not know.
    pub outgrown: Option<u16>,
    /// Whether two headers hold that contradict each other: somebody with a seat lied, and this host erases nothing any more.
    pub split: bool,
    /// Whether it is about to leave the mesh.
    pub leaving: bool,
    /// Whether it left the mesh.
    pub left: bool,
    /// Whether its peers have unlocked it since its start.
    pub unlocked: bool,
    /// Round of the newest current header.
    pub header: Option<Round>,
    /// The newest current epoch.
    pub round: Option<Round>,
    /// Length of an epoch in milliseconds.
    pub epoch_ms: Option<u64>,
    /// Round of its newest evidence.
    pub evidence: Option<Round>,
    /// Records applied.
    pub records: u64,
    /// Shares held.
    pub shares: usize,
    /// The newest refusals, oldest first.
    pub refusals: Vec<Refused>,
}

/// How the mesh key is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyLine {
    /// Shares that sign.
    pub needed: u8,
    /// Hosts that hold one.
    pub holders: usize,
    /// Which dealing it is, from 1.
    pub key_epoch: u64,
    /// Domains that may be hostile together and hold as many shares as sign; none is as it should be.
    pub crowded: Vec<String>,
}

/// One line of the table of hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLine {
    /// The member.
    pub record: MemberRecord,
    /// How it stands, as the leader last said.
    pub standing: Standing,
    /// Where it says that it is.
    pub address: Address,
    /// Whether it leads.
    pub coordinates: bool,
    /// Whether it sits in the committee.
    pub seated: bool,
}

/// Who a daemon is and what it pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityReply {
    /// Its transport key.
    pub transport: TransportKey,
    /// What it pins, if it belongs to a mesh.
    pub pins: Option<Pins>,
    /// Whom a ticket names: itself first, then the committee.
    pub contacts: Vec<Contact>,
    /// The mesh's genesis, if it belongs to one.
    pub genesis: Option<Box<SignedGenesis>>,
    /// SHA-256 of each of its EKs.
    pub ek_hashes: Vec<Digest>,
}

/// Answers to local requests.
#[derive(Debug)]
pub enum LocalReply {
    /// Founded or joined.
    Joined(Box<StatusReply>),
    /// Who this daemon is.
    Identity(Box<IdentityReply>),
    /// How this host is.
    Status(Box<StatusReply>),
    /// All members.
    Hosts(Vec<HostLine>),
    /// All credentials.
    List(Vec<Credential>),
    /// One credential.
    Show {
        /// The credential.
        credential: Box<Credential>,
        /// Its group.
        group: Group,
    },
    /// An age file.
    OwnerMap(Vec<u8>),
    /// The newest evidence and the AK that signed its quote.
    Evidence {
        /// The evidence.
        evidence: Box<SignedEvidence>,
        /// The quote's qualifying data.
        qualifying: Digest,
        /// TPMT_PUBLIC of the AK.
        ak: Vec<u8>,
    },
    /// Where an order may go.
    Bundle(Box<DealBundle>),
    /// A dealt credential.
    Package(Box<Package>),
    /// A credential is recorded.
    Stored {
        /// The credential.
        id: CredentialId,
        /// Its version.
        version: u64,
        /// Index of the record.
        record: u64,
        /// Its group.
        group: GroupId,
        /// Holders, in the order of the indexes.
        holders: Vec<HostId>,
        /// Holders that had not flushed their share when it was acknowledged.
        missing: Vec<HostId>,
        /// Holders that may be lost at once.
        margin: u8,
    },
    /// The newest head of a credential.
    Head(Box<SignedHead>),
    /// A head that changes nothing of the value is recorded.
    Changed {
        /// The credential.
        id: CredentialId,
        /// Number of the head.
        number: u64,
        /// Version of the value.
        version: u64,
        /// Index of the record.
        record: u64,
        /// Whether it binds so many holders that the others cannot serve a reader.
        certain: bool,
        /// Holders that have not said yet that it binds them.
        missing: Vec<HostId>,
    },
    /// It is recorded that this host leaves; the committee does the rest.
    Leaving,
    /// It may end now.
    Ended,
    /// A credential.
    Secret(SecretBytes),
    /// A beacon.
    Beacon(SignedBeacon),
}
