//! Tickets: one machine may join, under this name, in this role and place. A ticket is a bearer secret in a file:
//! an armoured block, and behind it an SSHSIG of an operator of the domain over the bytes in the block.

use serde::{Deserialize, Serialize};

use crate::error::Check;
use crate::genesis::GenesisVerified;
use crate::limits::{COMMITTEE_MAX, SSHSIG_MAX, TICKET_MAX};
use crate::membership::Role;
use crate::suite::{MeshKey, Suite};
use crate::types::{BlsPublic, Digest, MeshId, TicketSerial, TransportKey};
use crate::wire::Address;
use crate::{text, wire};

/// SSHSIG namespace of tickets.
pub const NAMESPACE: &str = "vouchsafe.ticket.v1";
/// Label of the armour.
pub const LABEL: &str = "VOUCHSAFE TICKET";
const VERSION: u16 = 1;

/// What the joiner and every outsider pin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    /// SHA-256 of the genesis.
    pub mesh: MeshId,
    /// The mesh key; none while the mesh is forming.
    pub key: Option<BlsPublic>,
}

impl Pins {
    /// The mesh key, once there is one.
    pub fn mesh_key(&self) -> Option<MeshKey> {
        self.key.map(MeshKey::pinned)
    }
}

/// A host that a joiner may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// Its transport key.
    pub transport: TransportKey,
    /// Where it was when this was written.
    pub address: Address,
}

/// An admission ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// Version of this form.
    pub version: u16,
    /// What the joiner pins.
    pub pins: Pins,
    /// Hosts to ask, the one that wrote the ticket first.
    pub contacts: Vec<Contact>,
    /// Name of the machine.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// The administrative domain: that of the operator who signs.
    pub domain: String,
    /// Region, for the spread.
    pub region: String,
    /// Zone, for the spread.
    pub zone: String,
    /// One use.
    pub serial: TicketSerial,
    /// Wall clock in milliseconds after which it admits nobody.
    pub expires_ms: u64,
    /// The chip, where it is known.
    pub ek_hash: Option<Digest>,
}

impl Ticket {
    /// A ticket of the version that this binary writes.
    #[allow(clippy::too_many_arguments, reason = "the fields of the record")]
    pub fn new(
        pins: Pins,
        contacts: Vec<Contact>,
        name: String,
        role: Role,
        domain: String,
        region: String,
        zone: String,
        serial: TicketSerial,
        expires_ms: u64,
        ek_hash: Option<Digest>,
    ) -> Self {
        Self { version: VERSION, pins, contacts, name, role, domain, region, zone, serial, expires_ms, ek_hash }
    }
}

/// A ticket's bytes and signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedTicket {
    /// Canonical bytes of the [`Ticket`].
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// Armoured SSHSIG.
    pub signature: String,
}

impl SignedTicket {
    /// The file that is handed to the joiner.
    pub fn to_text(&self) -> String {
        format!("{}{}", text::armour(LABEL, &self.bytes), self.signature)
    }

    /// Reads the file. Its signature is not checked here: the joiner cannot know the operators yet.
    pub fn from_text(file: &str) -> Option<Self> {
        if file.len() > TICKET_MAX {
            return None;
        }
        let (bytes, signature) = text::dearmour(LABEL, file)?;
        let signed = Self { bytes, signature: format!("{}\n", signature.trim()) };
        signed.ticket().map(|_| signed)
    }

    /// The content, unchecked: what the joiner pins is what its operator handed it.
    pub fn ticket(&self) -> Option<Ticket> {
        let ticket = wire::decode::<Ticket>(&self.bytes, TICKET_MAX).ok()?;
        (ticket.version == VERSION && (1..=COMMITTEE_MAX).contains(&ticket.contacts.len())).then_some(ticket)
    }
}

/// A ticket whose signature, mesh, domain and date hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketVerified(Ticket);

impl TicketVerified {
    /// Checks the ticket against the genesis and the clock. Whether it was used is for the records to say.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn check(
        suite: &dyn Suite,
        genesis: &GenesisVerified,
        signed: &SignedTicket,
        wall_ms: u64,
    ) -> Result<Self, Check> {
        let ticket = signed.ticket().ok_or(Check::TicketSignature)?;
        if ticket.pins.mesh != *genesis.mesh() {
            return Err(Check::TicketMesh);
        }
        let domain = genesis.genesis().domains.iter().find(|domain| domain.name == ticket.domain);
        let signed_well = signed.signature.len() <= SSHSIG_MAX
            && domain.is_some_and(|domain| {
                let holds = |key| suite.sshsig_holds(key, NAMESPACE, &signed.bytes, &signed.signature);
                domain.operators.iter().any(holds)
            });
        let named_well = [&ticket.name, &ticket.region, &ticket.zone].into_iter().all(|name| text::is_name(name));
        if !signed_well || !named_well {
            return Err(Check::TicketSignature);
        }
        if wall_ms > ticket.expires_ms {
            return Err(Check::TicketExpired);
        }
        Ok(Self(ticket))
    }

    /// The content.
    pub fn ticket(&self) -> &Ticket {
        &self.0
    }
}
