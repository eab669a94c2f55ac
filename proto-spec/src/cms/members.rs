//! The part of the replicated state that speaks of members: who is in, who is about to leave, who left.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::snapshot::{Row, Skip};
use crate::error::Check;
use crate::limits::MEMBERS_MAX;
use crate::membership::{Member, MemberRecord, Role};
use crate::suite::{MeshKey, Suite};
use crate::tree;
use crate::types::{Digest, Ed25519Signature, HostId, MeshId, Purpose, Round, TicketSerial, TransportKey};

/// All members.
#[derive(Debug, Clone, Default)]
pub struct Members {
    all: BTreeMap<HostId, Member>,
    by_transport: BTreeMap<TransportKey, HostId>,
    names: BTreeMap<String, HostId>,
    ek_hashes: BTreeMap<Digest, HostId>,
    tickets: BTreeMap<TicketSerial, HostId>,
    /// The number of each member's unlock, and the round since which it is.
    unlocks: BTreeMap<HostId, (u64, Round)>,
    /// Members that said that they leave: no share and no seat goes to them any more.
    leaving: BTreeSet<HostId>,
    /// Hosts that left and may be named as holders still, with the index of the record by which they left.
    departed: BTreeMap<HostId, (MemberRecord, u64)>,
}

/// A host's word that it leaves: nobody else can send it away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeavingWord {
    /// Round of the newest header in its records: what is refused for ten epochs is said again, or taken back.
    pub round: Round,
    /// Signature of its transport key.
    pub signature: Ed25519Signature,
}

impl LeavingWord {
    /// What a host signs that leaves.
    pub fn signed_bytes(mesh: &MeshId, record: &MemberRecord, round: Round) -> Vec<u8> {
        Purpose::Leaving.signed_bytes(mesh, &[record.digest(mesh).0.as_slice(), &round.0.to_be_bytes()].concat())
    }
}

/// What a host signs whose shards lie under its next unlock.
pub fn rewrapped_bytes(mesh: &MeshId, record: &MemberRecord, number: u64) -> Vec<u8> {
    Purpose::Rewrapped.signed_bytes(mesh, &[record.digest(mesh).0.as_slice(), &number.to_be_bytes()].concat())
}

/// A member's leaf in the header's tree.
fn leaf(place: u64, record: &Digest, leaving: bool) -> Digest {
    let standing: &[u8] = if leaving { b"leaving" } else { b"admitted" };
    Purpose::MemberLeaf.digest(&[&place.to_be_bytes(), &record.0, standing])
}

/// A member under a header's root over all of them: for whoever has not the records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberProof {
    /// The member.
    pub record: MemberRecord,
    /// Whether it said that it leaves.
    pub leaving: bool,
    /// Its place among the members.
    pub place: u64,
    /// The path from its leaf; at most [`tree::PATH_MAX`] steps.
    pub path: Vec<Option<Digest>>,
}

impl MemberProof {
    /// Whether it holds under the root over the members that a header names.
    pub fn holds(&self, mesh: &MeshId, root: &Digest) -> bool {
        let leaf = leaf(self.place, &self.record.digest(mesh), self.leaving);
        usize::try_from(self.place).is_ok_and(|place| tree::holds(root, &leaf, place, &self.path))
    }
}

/// The number of the unlock with which a member begins.
const FIRST_UNLOCK: u64 = 1;

impl Members {
    /// Lets a newcomer in, or somebody back who lost its state.
    ///
    /// # Errors
    /// The check that rules it out.
    pub(super) fn admit(&mut self, member: Member, round: Round) -> Result<HostId, Check> {
        let record = member.record();
        if self.all.contains_key(&record.host) {
            self.check_return(record)?;
            self.forget_keys(&record.host);
        } else {
            self.check_newcomer(record)?;
        }
        let host = record.host;
        self.by_transport.insert(record.transport, host);
        self.names.insert(record.name.clone(), host);
        self.tickets.insert(record.ticket, host);
        for hash in record.ek_hashes() {
            self.ek_hashes.insert(hash, host);
        }
        self.departed.remove(&host);
        self.leaving.remove(&host);
        self.unlocks.insert(host, (FIRST_UNLOCK, round));
        self.all.insert(host, member);
        Ok(host)
    }

    /// Whether a joiner's identity, name, keys and ticket are all new.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check_newcomer(&self, record: &MemberRecord) -> Result<(), Check> {
        if self.all.len() >= MEMBERS_MAX {
            return Err(Check::Capacity);
        }
        if self.tickets.contains_key(&record.ticket) {
            return Err(Check::TicketUsed);
        }
        if self.all.contains_key(&record.host) || record.ek_hashes().any(|ek| self.ek_hashes.contains_key(&ek)) {
            return Err(Check::EkKnown);
        }
        self.check_names_and_keys(record)
    }

    /// Whether a machine that is a member may come back with other keys: it lost its state. Whoever signs the admission
    /// has seen that its ticket names the machine.
    ///
    /// # Errors
    /// [`Check::EkKnown`] where it is not the same machine in the same place, or the first thing of others that it takes.
    pub fn check_return(&self, record: &MemberRecord) -> Result<(), Check> {
        if self.tickets.contains_key(&record.ticket) {
            return Err(Check::TicketUsed);
        }
        let before = self.all.get(&record.host).ok_or(Check::Membership)?.record();
        // Shares and seats were placed by where it was.
        let same = before.eks == record.eks
            && before.role == record.role
            && (&before.domain, &before.region, &before.zone) == (&record.domain, &record.region, &record.zone);
        if !same || before.transport == record.transport {
            return Err(Check::EkKnown);
        }
        self.check_names_and_keys(record)
    }

    /// Whether no other member has one of these.
    fn check_names_and_keys(&self, record: &MemberRecord) -> Result<(), Check> {
        let is_other = |host: &&HostId| **host != record.host;
        if self.names.get(&record.name).filter(is_other).is_some() {
            return Err(Check::NameTaken);
        }
        if self.by_transport.get(&record.transport).filter(is_other).is_some() {
            return Err(Check::Transport);
        }
        let same = |other: &MemberRecord| other.ak == record.ak || other.vote == record.vote;
        if self.all.values().map(Member::record).any(|other| other.host != record.host && same(other)) {
            return Err(Check::AkAttributes);
        }
        Ok(())
    }

    fn forget_keys(&mut self, host: &HostId) {
        let Some(record) = self.all.get(host).map(|member| member.record().clone()) else { return };
        self.by_transport.remove(&record.transport);
        self.names.remove(&record.name);
        for hash in record.ek_hashes() {
            self.ek_hashes.remove(&hash);
        }
    }

    /// Whether it is a member's own word that it leaves.
    ///
    /// # Errors
    /// [`Check::Membership`] where it is none or left before, [`Check::Transport`] where it was not its word.
    pub(super) fn check_leaving_word(
        &self,
        suite: &dyn Suite,
        mesh: &MeshId,
        host: &HostId,
        word: &LeavingWord,
    ) -> Result<(), Check> {
        if self.leaving.contains(host) {
            return Err(Check::Membership);
        }
        let record = self.all.get(host).ok_or(Check::Membership)?.record();
        let bytes = LeavingWord::signed_bytes(mesh, record, word.round);
        if !suite.ed25519_holds(&record.transport, &bytes, &word.signature) {
            return Err(Check::Transport);
        }
        Ok(())
    }

    /// A member is about to leave.
    pub(super) fn begin_leaving(&mut self, host: &HostId) {
        self.leaving.insert(*host);
    }

    /// Whether it is a member's own word that its shards lie under this unlock.
    ///
    /// # Errors
    /// [`Check::Membership`] or [`Check::Transport`].
    pub(super) fn check_rewrapped(
        &self,
        suite: &dyn Suite,
        mesh: &MeshId,
        host: &HostId,
        number: u64,
        signature: &Ed25519Signature,
    ) -> Result<(), Check> {
        let record = self.all.get(host).ok_or(Check::Membership)?.record();
        let bytes = rewrapped_bytes(mesh, record, number);
        if suite.ed25519_holds(&record.transport, &bytes, signature) { Ok(()) } else { Err(Check::Transport) }
    }

    /// A member goes on to its next unlock.
    pub(super) fn advance(&mut self, host: &HostId, round: Round) {
        if let Some((number, since)) = self.unlocks.get_mut(host) {
            (*number, *since) = (number.saturating_add(1), round);
        }
    }

    /// The number by which a host is unlocked.
    pub fn unlock_number(&self, host: &HostId) -> u64 {
        self.unlocks.get(host).map_or(FIRST_UNLOCK, |(number, _)| *number)
    }

    /// The round since which a member is unlocked by that number.
    pub fn unlocked_since(&self, host: &HostId) -> Option<Round> {
        self.unlocks.get(host).map(|(_, since)| *since)
    }

    /// A member that said so is gone. What else it must have given up before is for the records to say.
    ///
    /// # Errors
    /// [`Check::Membership`] where it did not say so, [`Check::Capacity`] where too many are remembered.
    pub(super) fn leave(&mut self, host: &HostId, at: u64) -> Result<(), Check> {
        if self.departed_is_full() {
            return Err(Check::Capacity);
        }
        if !self.leaving.remove(host) {
            return Err(Check::Membership);
        }
        self.forget_keys(host);
        let record = self.all.remove(host).ok_or(Check::Membership)?.record().clone();
        self.unlocks.remove(host);
        self.depart(record, at);
        Ok(())
    }

    /// Remembers a host that left.
    pub(super) fn depart(&mut self, record: MemberRecord, at: u64) {
        self.departed.insert(record.host, (record, at));
    }

    /// Whether no other host can be remembered that left.
    pub(super) fn departed_is_full(&self) -> bool {
        self.departed.len() >= MEMBERS_MAX
    }

    /// Hosts that left, in that order.
    pub(super) fn departed_in_order(&self) -> Vec<HostId> {
        let mut departed: Vec<(u64, HostId)> = self.departed.iter().map(|(host, (_, at))| (*at, *host)).collect();
        departed.sort_unstable();
        departed.into_iter().map(|(_, host)| host).collect()
    }

    /// Remembers no more of a host that left.
    pub(super) fn forget(&mut self, host: &HostId) {
        self.departed.remove(host);
    }

    pub(super) fn row_count(&self) -> usize {
        self.all.len() + self.departed.len() + self.tickets.len()
    }

    /// The rows that speak of members, without as many of each kind as are to be skipped.
    pub(super) fn rows<'a>(&'a self, skip: &mut Skip) -> impl Iterator<Item = Row> + use<'a> {
        let members = self.all.iter().skip(skip.of(self.all.len())).map(|(host, member)| Row::Member {
            admission: member.admission().clone(),
            leaving: self.leaving.contains(host),
            unlock: self.unlock_number(host),
            since: self.unlocked_since(host).unwrap_or(Round(0)),
        });
        let departed = self.departed.values().skip(skip.of(self.departed.len()));
        let departed = departed.map(|(record, at)| Row::Departed { record: record.clone(), at: *at });
        let tickets = self.tickets.iter().skip(skip.of(self.tickets.len()));
        let tickets = tickets.map(|(serial, host)| Row::Ticket { serial: *serial, host: *host });
        members.chain(departed).chain(tickets)
    }

    /// Takes a row of a snapshot.
    pub(super) fn take_row(&mut self, suite: &dyn Suite, mesh: &MeshId, key: &MeshKey, row: &Row) -> Option<()> {
        match row {
            Row::Member { admission, leaving, unlock, since } => {
                let host = self.admit(Member::check(suite, mesh, key, admission.clone())?, *since).ok()?;
                self.unlocks.insert(host, (*unlock, *since));
                if *leaving {
                    self.leaving.insert(host);
                }
            }
            Row::Departed { record, at } => {
                self.depart(record.clone(), *at);
            }
            Row::Ticket { serial, host } => {
                self.tickets.insert(*serial, *host);
            }
            _ => return None,
        }
        Some(())
    }

    /// Leaves of the header's tree, in the order of the identities.
    pub(super) fn leaves(&self, mesh: &MeshId) -> Vec<Digest> {
        let leaf = |(place, (host, member)): (u64, (&HostId, &Member))| {
            leaf(place, &member.record().digest(mesh), self.leaving.contains(host))
        };
        (0_u64..).zip(&self.all).map(leaf).collect()
    }

    /// Shows that a host is a member to who knows a header's root over them.
    pub fn prove(&self, mesh: &MeshId, host: &HostId) -> Option<MemberProof> {
        let record = self.all.get(host)?.record().clone();
        let place = self.all.range(..*host).count();
        let path = tree::path(&self.leaves(mesh), place);
        let leaving = self.leaving.contains(host);
        Some(MemberProof { record, leaving, place: u64::try_from(place).ok()?, path })
    }

    /// A member.
    pub fn get(&self, host: &HostId) -> Option<&Member> {
        self.all.get(host)
    }

    /// The member with this transport key.
    pub fn by_transport(&self, key: &TransportKey) -> Option<&Member> {
        self.all.get(self.by_transport.get(key)?)
    }

    /// All members, in the order of their identities.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.all.values()
    }

    /// Hosts that stay: seats and shares go to them.
    pub fn staying_hosts(&self) -> impl Iterator<Item = &MemberRecord> {
        let hosts = self.all.values().map(Member::record).filter(|record| record.role == Role::Host);
        hosts.filter(|record| !self.leaving.contains(&record.host))
    }

    /// Members that are about to leave.
    pub fn leaving(&self) -> impl Iterator<Item = &HostId> {
        self.leaving.iter()
    }

    /// Whether a member is about to leave.
    pub fn is_leaving(&self, host: &HostId) -> bool {
        self.leaving.contains(host)
    }

    /// The record of a host that left.
    pub fn departed(&self, host: &HostId) -> Option<&MemberRecord> {
        self.departed.get(host).map(|(record, _)| record)
    }

    /// Index of the record by which the host with this transport key left: it may learn that, and nothing later.
    pub fn left_at(&self, key: &TransportKey) -> Option<u64> {
        self.departed.values().find(|(record, _)| record.transport == *key).map(|(_, at)| *at)
    }

    /// Whom a ticket let in.
    pub fn admitted_by(&self, ticket: &TicketSerial) -> Option<&Member> {
        self.all.get(self.tickets.get(ticket)?)
    }
}
