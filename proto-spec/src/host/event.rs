//! What goes into `Host::handle`.

use std::collections::BTreeMap;

use crate::attest::quote::Quote;
use crate::credential::head::SignedHead;
use crate::credential::split::PutOrder;
use crate::error::DecodeError;
use crate::genesis::SignedGenesis;
use crate::relay::Wait;
use crate::ticket::SignedTicket;
use crate::types::{CredentialId, Digest, Round, SecretBytes, TransportKey};
use crate::wire::{Address, Entrusting, Message, Package, Unverified};

use super::action::Lane;

/// Names an action whose answer comes back as an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ActionId(pub u64);

/// Names a request from the local socket; the driver gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalId(pub u64);

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// The daemon started, or a deadline was reached.
    Tick,
    /// A message came over a connection that proved this transport key.
    Message {
        /// The peer.
        from: TransportKey,
        /// The message.
        message: Box<Unverified<Message>>,
    },
    /// Somebody passed on what is for everybody; [`super::Action::Judge`] answers.
    Gossip {
        /// Names it.
        id: ActionId,
        /// What it is.
        message: Result<Box<Unverified<Message>>, DecodeError>,
    },
    /// Bytes came that are no message.
    Garbage {
        /// The peer.
        from: TransportKey,
        /// What is wrong with them.
        error: DecodeError,
    },
    /// A message could not be delivered.
    Undeliverable {
        /// The peer.
        to: TransportKey,
    },
    /// The TPM answered.
    Tpm {
        /// Which request.
        id: ActionId,
        /// Its answer; `None` where it failed.
        reply: Option<TpmReply>,
    },
    /// Blobs were read.
    Blobs {
        /// Which request.
        id: ActionId,
        /// Their bytes; `None` where one is missing or damaged.
        blobs: Option<Vec<Vec<u8>>>,
    },
    /// A shard map was sealed to its recipients.
    MapSealed {
        /// Which request.
        id: ActionId,
        /// The age file; `None` where a recipient is none.
        file: Option<Vec<u8>>,
    },
    /// A shard map was opened.
    MapOpened {
        /// Which request.
        id: ActionId,
        /// Its plaintext; `None` where it does not open.
        plaintext: Option<Vec<u8>>,
    },
    /// All that was to be written before this action is durable.
    Persisted {
        /// Which action.
        id: ActionId,
    },
    /// A write failed. Nothing behind it in its lane was done.
    PersistFailed {
        /// The lane.
        lane: Lane,
    },
    /// The disk was looked at.
    Room {
        /// Bytes that are free on it.
        free: u64,
    },
    /// A request from the local socket.
    Command {
        /// Which.
        id: LocalId,
        /// What.
        command: Box<LocalCommand>,
    },
}

/// What a TPM answers.
#[derive(Debug)]
pub enum TpmReply {
    /// The selected PCRs of the SHA-256 bank.
    Pcrs(BTreeMap<u8, Digest>),
    /// A quote.
    Quote(Quote),
    /// The secrets inside the credential blobs, in their order.
    Secrets(Vec<SecretBytes>),
}

/// What a local client asks.
#[derive(Debug)]
pub enum LocalCommand {
    /// Begin a mesh with this genesis and gather its founders; the ticket is this host's own.
    Found {
        /// The genesis.
        genesis: SignedGenesis,
        /// The founder's ticket.
        ticket: SignedTicket,
    },
    /// Join a mesh.
    Join {
        /// The ticket.
        ticket: SignedTicket,
        /// Where the host is that wrote the ticket, if not where it says itself.
        address: Option<Address>,
    },
    /// Who this daemon is and what it pins.
    Identity,
    /// How this host is.
    Status,
    /// All members.
    Hosts,
    /// All credentials.
    List,
    /// One credential.
    Show(CredentialId),
    /// The shard map for its owner's recipients.
    OwnerMap(CredentialId),
    /// The newest evidence.
    Evidence,
    /// Where may this order go?
    PutBegin(PutOrder),
    /// Let the coordinator deal.
    Entrust(Entrusting),
    /// Store a dealt and signed credential.
    PutStore {
        /// The package.
        package: Package,
        /// The owner's signature over its head.
        signature: String,
        /// When it is acknowledged.
        wait: Wait,
    },
    /// The newest head of a credential, of which the leader still says that it is.
    Newest(CredentialId),
    /// Record a head that changes nothing of the value.
    Change(SignedHead),
    /// Leave the mesh.
    Leave,
    /// This host is about to end: a lead is handed on before.
    End,
    /// Read a credential.
    Get(CredentialId),
    /// The beacon of a round, or the newest.
    Beacon(Option<Round>),
}
