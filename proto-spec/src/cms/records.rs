//! The replicated state: `apply(command) → effects`, the same everywhere. Nothing here asks a clock, a generator or
//! another host; a command that does not fit changes nothing but the index.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::command::{Command, Founding};
use super::committee::{Committee, FOUNDERS, FOUNDERS_T, Step, most_spread, seats_are_spread, wanted};
use super::credentials::{Credential, Credentials, has_expired};
use super::election::LogEntry;
use super::groups::Group;
use super::members::Members;
use super::snapshot::Snapshot;
use crate::beacon::{EpochVerified, SignedBeacon};
use crate::credential::dealing::Ceremony;
use crate::credential::head::{HeadVerified, SignedHead};
use crate::credential::receipt::{Flushed, PutReceipt, Value};
use crate::credential::split::commitments_digest;
use crate::error::Check;
use crate::genesis::GenesisVerified;
use crate::header::Header;
use crate::limits::{ENTRY_MAX, EPOCHS_KEPT, LOG_ENTRIES_MAX, REWRAP_EPOCHS, TESTNET_REWRAP_EPOCHS};
use crate::membership::{Admission, Member, MemberRecord};
use crate::suite::{MeshKey, Suite};
use crate::ticket::Pins;
use crate::tree;
use crate::types::{
    Commitment, CredentialId, Digest, Ed25519Signature, GroupId, HostId, MeshId, Purpose, Round, TransportKey, sha256,
};
use crate::wire;

/// What followed from a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The mesh exists.
    Founded,
    /// A member was admitted.
    Admitted(HostId),
    /// A group became active.
    GroupActive(GroupId),
    /// A head was recorded.
    HeadRecorded(CredentialId),
    /// A header was closed: the committee signs it.
    HeaderClosed(Box<Header>),
    /// Seats or shares of the mesh key changed.
    CommitteeChanged,
    /// A member is about to leave.
    Leaving(HostId),
    /// A member left.
    Left(HostId),
    /// The records are read by this version from here on.
    VersionRaised(u16),
    /// A member is unlocked by its next number from here on.
    NumberAdvanced(HostId),
    /// Nothing: a leader began its term.
    Nothing,
}

/// The state after `Found`.
#[derive(Debug, Clone)]
pub(super) struct Founded {
    pub(super) genesis: GenesisVerified,
    pub(super) committee: Committee,
    pub(super) mesh_key: MeshKey,
}

/// The replicated state.
#[derive(Debug, Clone, Default)]
pub struct Records {
    pub(super) applied: u64,
    /// Term of the newest entry.
    pub(super) term: u64,
    pub(super) protocol_version: u16,
    pub(super) founded: Option<Founded>,
    pub(super) members: Members,
    pub(super) groups: BTreeMap<GroupId, Group>,
    pub(super) credentials: Credentials,
    /// The last few headers, the newest last.
    pub(super) headers: Vec<Header>,
    /// Digest over all entries so far: two states with the same root have seen the same log.
    pub(super) root: Option<Digest>,
    /// The newest snapshot.
    pub(super) snapshot: Snapshot,
    /// The state that it names.
    pub(super) frozen: Option<Arc<Self>>,
}

impl Records {
    /// Applies the next entry. Deterministic; a command that is refused changes nothing but the index.
    ///
    /// # Errors
    /// The check that rules the command out.
    pub fn apply(&mut self, suite: &dyn Suite, entry: &LogEntry) -> Result<Effect, Check> {
        let effect = self.effect(suite, entry);
        self.applied += 1;
        self.term = entry.term;
        let before = self.root.unwrap_or(Digest::ZERO);
        let said = self.said(entry);
        // The term too: a follower that was told another one would vote by it some day.
        let place = [self.applied.to_be_bytes(), entry.term.to_be_bytes()].concat();
        let change = wire::encode(&entry.change);
        self.root = Some(Purpose::Records.digest(&[&before.0, &place, &change, &said.0]));
        effect
    }

    /// What an entry says. A founding may reach the founders with other consents beside the same content: whoever signs
    /// can make many signatures.
    fn said(&self, entry: &LogEntry) -> Digest {
        match wire::decode::<Command>(&entry.command, ENTRY_MAX) {
            Ok(Command::Found(founding)) if self.applied == 1 => {
                sha256(&wire::encode(&Founding { consents: Vec::new(), ..*founding }))
            }
            _ => sha256(&entry.command),
        }
    }

    fn effect(&mut self, suite: &dyn Suite, entry: &LogEntry) -> Result<Effect, Check> {
        if entry.command.is_empty() {
            return Ok(Effect::Nothing);
        }
        let command: Command = wire::decode(&entry.command, ENTRY_MAX).map_err(|_| Check::Record)?;
        if command.grows() && self.is_log_full_at(self.applied) {
            return Err(Check::Capacity);
        }
        // What Raft made of it is what it says.
        if entry.change != command.change() {
            return Err(Check::Record);
        }
        match command {
            Command::Found(founding) => self.found(suite, &founding),
            Command::Admit(admission) => self.admit(suite, *admission),
            Command::Group { group, beacon, absent } => self.activate(suite, group, &beacon, &absent),
            Command::Head { head, value } => self.put(suite, &head, &value),
            Command::Change { head } => self.change(suite, &head),
            Command::Leaving { host, word } => self.begin_leaving(suite, &host, &word),
            Command::Leave { host } => self.leave(&host),
            Command::Epoch { beacon } => self.close_header(suite, &beacon),
            Command::Committee(step) => self.change_committee(suite, &step),
            Command::Version { version, words } => self.raise_version(suite, version, &words),
            Command::Rewrapped { host, number, signature } => self.rewrapped(suite, &host, number, &signature),
        }
    }

    /// Whether these records would take a step of the committee now: a leader proposes no other. Deals are checked when they
    /// are recorded.
    pub fn takes(&self, suite: &dyn Suite, step: &Step) -> bool {
        let taken = |committee: &Committee, mesh| committee.clone().take(suite, mesh, self.round(), step).is_ok();
        self.may_sit(step) && self.committee().zip(self.mesh()).is_some_and(|(committee, mesh)| taken(committee, mesh))
    }

    /// Whether a step seats or deals to nobody to whom the members' records speak against.
    fn may_sit(&self, step: &Step) -> bool {
        match step {
            Step::Seat { host, .. } => self.members.staying_hosts().any(|record| record.host == *host),
            Step::Redeal(ceremony) => self.stays_spread(ceremony),
            _ => true,
        }
    }

    fn change_committee(&mut self, suite: &dyn Suite, step: &Step) -> Result<Effect, Check> {
        let (may_sit, round) = (self.may_sit(step), self.round());
        let founded = self.founded.as_mut().filter(|_| may_sit).ok_or(Check::Record)?;
        let mesh = *founded.genesis.mesh();
        if let (Step::Activate { dealt, .. }, Some(dealing)) = (step, &founded.committee.dealing) {
            let key_of = |host: &HostId| self.members.get(host).map(|member| &member.record().transport);
            if !dealt.iter().all(|deal| deal.is_held(suite, &mesh, dealing, key_of)) {
                return Err(Check::Deal);
            }
        }
        founded.committee.take(suite, &mesh, round, step)?;
        Ok(Effect::CommitteeChanged)
    }

    /// Whether a dealing leaves the mesh key spread over domains, unless no committee could be. Who is absent is a leader's
    /// word, so it is no reason: else one domain that leads could deal the key to itself.
    pub fn stays_spread(&self, ceremony: &Ceremony) -> bool {
        let Some(committee) = self.committee() else { return false };
        self.are_spread(ceremony.t, &ceremony.receivers)
            || !self.are_spread(committee.key.t, &committee.key.holders)
            || self.spread_seats().is_none()
    }

    /// Whether no domains that are tolerated to be hostile hold t of these seats together.
    pub fn are_spread(&self, t: u8, hosts: &[HostId]) -> bool {
        let tolerate = self.genesis().map_or(0, |genesis| genesis.genesis().tolerate);
        let members = hosts.iter().filter_map(|host| self.member(host));
        seats_are_spread(t, tolerate, members.map(|member| member.record().domain.as_str()))
    }

    /// Seats that the committee is to have: as many as the genesis asks for and there are hosts for, but only as many as
    /// can be spread. Where no number can be, it is as large as if domains did not matter, and `status` says so.
    pub fn wanted_seats(&self) -> usize {
        self.spread_seats().unwrap_or_else(|| self.most_seats())
    }

    /// The most seats that can be spread over all hosts; `None` where no number can be.
    pub fn spread_seats(&self) -> Option<usize> {
        let standing: Vec<&MemberRecord> = self.members.staying_hosts().collect();
        let tolerate = self.genesis()?.genesis().tolerate;
        most_spread(self.most_seats(), tolerate, &standing)
    }

    fn most_seats(&self) -> usize {
        let asked = self.genesis().map_or(0, |genesis| genesis.genesis().committee);
        wanted(self.members.staying_hosts().count(), asked)
    }

    fn found(&mut self, suite: &dyn Suite, founding: &Founding) -> Result<Effect, Check> {
        if self.founded.is_some() || self.applied > 0 {
            return Err(Check::Record);
        }
        let genesis = GenesisVerified::check(suite, &founding.genesis).map_err(|_| Check::Record)?;
        let mesh = *genesis.mesh();
        let Founding { founders, key, deals, signature, consents, .. } = founding;
        let hosts: Vec<HostId> = founders.iter().map(|admission| admission.record.host).collect();
        let domains = founders.iter().map(|admission| admission.record.domain.as_str());
        let sound = founders.len() == FOUNDERS
            && consents.len() == FOUNDERS
            && key.key_epoch == 1
            && key.ceremony.is_none()
            && key.dealers.is_empty()
            && key.t == FOUNDERS_T
            && key.commitments.len() == usize::from(FOUNDERS_T)
            && key.holders == hosts
            && hosts.is_sorted_by(|a, b| a < b)
            && seats_are_spread(FOUNDERS_T, genesis.genesis().tolerate, domains);
        let records: Vec<MemberRecord> = founders.iter().map(|admission| admission.record.clone()).collect();
        let bytes = Founding::signed_bytes(&mesh, &records, key, deals);
        let consented = records
            .iter()
            .zip(consents)
            .all(|(record, consent)| suite.ed25519_holds(&record.transport, &bytes, consent));
        let mesh_key = key.mesh_key();
        if !sound || !consented || !mesh_key.holds(suite, &bytes, signature) {
            return Err(Check::Record);
        }
        let mut state = Self { protocol_version: genesis.genesis().protocol_version, ..Self::default() };
        state.founded = Some(Founded { genesis, committee: Committee::founded(key.clone()), mesh_key });
        for admission in founders {
            state.admit(suite, admission.clone())?;
        }
        *self = state;
        Ok(Effect::Founded)
    }

    fn admit(&mut self, suite: &dyn Suite, admission: Admission) -> Result<Effect, Check> {
        let founded = self.founded.as_ref().ok_or(Check::Record)?;
        let mesh = *founded.genesis.mesh();
        let member = Member::check(suite, &mesh, &founded.mesh_key, admission).ok_or(Check::Record)?;
        let (round, host) = (self.round(), member.record().host);
        let returns = self.members.get(&host).is_some();
        self.members.admit(member, round)?;
        // Whoever begins anew has no share of before, though it stands in its groups.
        let groups = &self.groups;
        self.credentials.lost(|group| groups.get(group).and_then(|group| group.index_of(&host)));
        if let Some(founded) = self.founded.as_mut().filter(|_| returns) {
            founded.committee.lose(&host);
        }
        Ok(Effect::Admitted(host))
    }

    fn rewrapped(
        &mut self,
        suite: &dyn Suite,
        host: &HostId,
        number: u64,
        signature: &Ed25519Signature,
    ) -> Result<Effect, Check> {
        self.check_rewrapped(suite, host, number, signature)?;
        let round = self.round();
        self.members.advance(host, round);
        Ok(Effect::NumberAdvanced(*host))
    }

    /// Whether a member may go on to its next unlock.
    ///
    /// # Errors
    /// [`Check::Record`] where that is not the next number or comes too early, [`Check::Transport`] where it was not its
    /// word.
    pub fn check_rewrapped(
        &self,
        suite: &dyn Suite,
        host: &HostId,
        number: u64,
        signature: &Ed25519Signature,
    ) -> Result<(), Check> {
        let mesh = self.mesh().ok_or(Check::Record)?;
        if !self.may_rewrap(host) || self.members.unlock_number(host).checked_add(1) != Some(number) {
            return Err(Check::Record);
        }
        self.members.check_rewrapped(suite, mesh, host, number, signature)
    }

    /// Whether a member's shards have lain under its unlock long enough.
    pub fn may_rewrap(&self, host: &HostId) -> bool {
        let after = if self.is_testnet() { TESTNET_REWRAP_EPOCHS } else { REWRAP_EPOCHS };
        self.members.unlocked_since(host).is_some_and(|since| self.round().0 >= since.0.saturating_add(after))
    }

    /// Closes the header of a round: what all records before this one say.
    fn close_header(&mut self, suite: &dyn Suite, beacon: &SignedBeacon) -> Result<Effect, Check> {
        let key = self.mesh_key().ok_or(Check::Record)?;
        let round = EpochVerified::check(suite, &key, beacon).ok_or(Check::Record)?.round();
        if self.headers.last().is_some_and(|last| round <= last.round) {
            return Err(Check::Record);
        }
        self.take_snapshot();
        let founded = self.founded.as_ref().ok_or(Check::Record)?;
        let members = self.members.leaves(founded.genesis.mesh());
        let header = Header {
            round,
            member_root: tree::root(&members),
            policy_root: Digest::ZERO,
            certified: Round(0),
            committee: founded.committee.digest(),
            key_epoch: founded.committee.key.key_epoch,
            protocol_version: self.protocol_version,
            record: self.applied + 1,
            records_root: self.root(),
            snapshot: self.snapshot,
            group_root: self.group_root(),
        };
        self.headers.push(header.clone());
        let surplus = self.headers.len().saturating_sub(usize::try_from(EPOCHS_KEPT).unwrap_or(usize::MAX));
        self.headers.drain(..surplus);
        Ok(Effect::HeaderClosed(Box::new(header)))
    }

    /// Whether a receipt carries the signature of the member that it names.
    pub fn receipt_holds(&self, suite: &dyn Suite, receipt: &PutReceipt) -> bool {
        self.mesh()
            .zip(self.member(&receipt.holder))
            .is_some_and(|(mesh, member)| receipt.holds(suite, mesh, &member.record().transport))
    }

    /// Whether the holders of a group have said so themselves that they keep the shares of a head, and keep them still.
    fn check_receipts(&self, suite: &dyn Suite, head: &Digest, of_group: &Group, value: &Value) -> Result<(), Check> {
        let holds = |flushed: &Flushed| {
            let holder = of_group.holder_of(flushed.index);
            holder.is_some_and(|holder| self.receipt_holds(suite, &value.receipt(head, holder, flushed)))
        };
        // Its holders may have erased the shares by now.
        if value.round().is_none_or(|oldest| has_expired(oldest, self.round())) {
            return Err(Check::Expired);
        }
        if value.flushed.iter().all(holds) { Ok(()) } else { Err(Check::Receipts) }
    }

    fn put(&mut self, suite: &dyn Suite, head: &SignedHead, value: &Value) -> Result<Effect, Check> {
        let mesh = *self.mesh().ok_or(Check::Record)?;
        let head = HeadVerified::check(suite, &mesh, head)?;
        // Whoever leaves is let go only because nothing new comes to it.
        let stays = |host: &HostId| self.members.get(host).is_some() && !self.members.is_leaving(host);
        let of_group = self.groups.get(&value.group).filter(|group| group.holders.iter().all(stays));
        let of_group = of_group.ok_or(Check::Group)?;
        if !self.is_still_spread(of_group) {
            return Err(Check::Spread);
        }
        self.check_receipts(suite, head.digest(), of_group, value)?;
        let round = self.round();
        self.credentials.put(head, of_group, value, round, self.applied + 1).map(Effect::HeadRecorded)
    }

    fn change(&mut self, suite: &dyn Suite, head: &SignedHead) -> Result<Effect, Check> {
        let mesh = *self.mesh().ok_or(Check::Record)?;
        let head = HeadVerified::check(suite, &mesh, head)?;
        let round = self.round();
        self.credentials.change(head, round, self.applied + 1).map(Effect::HeadRecorded)
    }

    /// Whether a log that ends with this record has no room for more before the next snapshot.
    pub fn is_log_full_at(&self, last: u64) -> bool {
        last.saturating_sub(self.snapshot.record) >= LOG_ENTRIES_MAX
    }

    /// Round of the newest header: the clock of the records.
    pub fn round(&self) -> Round {
        self.headers.last().map_or(Round(0), |header| header.round)
    }

    /// Number of entries applied: the index of the newest record.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Term of the newest record.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Digest over all entries so far.
    pub fn root(&self) -> Digest {
        self.root.unwrap_or(Digest::ZERO)
    }

    /// The mesh, once founded.
    pub fn mesh(&self) -> Option<&MeshId> {
        self.founded.as_ref().map(|founded| founded.genesis.mesh())
    }

    /// The genesis, once founded.
    pub fn genesis(&self) -> Option<&GenesisVerified> {
        self.founded.as_ref().map(|founded| &founded.genesis)
    }

    /// The committee.
    pub fn committee(&self) -> Option<&Committee> {
        self.founded.as_ref().map(|founded| &founded.committee)
    }

    /// The mesh key.
    pub fn mesh_key(&self) -> Option<MeshKey> {
        self.founded.as_ref().map(|founded| founded.mesh_key)
    }

    /// The newest header, unsigned.
    pub fn header(&self) -> Option<&Header> {
        self.headers.last()
    }

    /// The oldest header that is remembered.
    pub fn oldest_header(&self) -> Option<&Header> {
        self.headers.first()
    }

    /// The header of a round, where it is one of the last few.
    pub fn header_of(&self, round: Round) -> Option<&Header> {
        self.headers.iter().find(|header| header.round == round)
    }

    /// The round of the header that was closed before that of this round.
    pub fn round_before(&self, round: Round) -> Option<Round> {
        self.headers.iter().map(|header| header.round).filter(|other| *other < round).max()
    }

    /// Whether the mesh is marked testnet: what takes days elsewhere is to be seen there.
    pub fn is_testnet(&self) -> bool {
        self.genesis().is_some_and(|genesis| genesis.genesis().testnet)
    }

    /// What a joiner and an outsider pin.
    pub fn pins(&self) -> Option<Pins> {
        self.founded
            .as_ref()
            .map(|founded| Pins { mesh: *founded.genesis.mesh(), key: Some(*founded.mesh_key.public()) })
    }

    /// Who is in, who is about to leave, who left.
    pub fn roll(&self) -> &Members {
        &self.members
    }

    /// A member.
    pub fn member(&self, host: &HostId) -> Option<&Member> {
        self.members.get(host)
    }

    /// The member with this transport key.
    pub fn member_by_transport(&self, key: &TransportKey) -> Option<&Member> {
        self.members.by_transport(key)
    }

    /// All members, in the order of their identities.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }

    /// A group.
    pub fn group(&self, id: &GroupId) -> Option<&Group> {
        self.groups.get(id)
    }

    /// All groups.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    /// All credentials.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// A credential, also one that was removed.
    pub fn credential(&self, id: &CredentialId) -> Option<&Credential> {
        self.credentials.get(id)
    }
}

/// Whether the commitments that came with a share are those that were recorded.
pub fn commitments_fit(recorded: &Digest, commitments: &[Commitment]) -> bool {
    commitments_digest(commitments) == *recorded
}
