//! What the coordinator does: admits, follows everybody's evidence, places groups, checks receipts, answers with maps.
//! It decides; `Host` writes the records and sends the answers.

use std::collections::{BTreeMap, BTreeSet};

use super::command::Command;
use super::credentials::{Credential, has_expired};
use super::groups::Group;
use super::version::VersionWord;
use crate::attest::enroll::{Candidate, OpenChallenge};
use crate::attest::evidence::{Appraised, SignedEvidence};
use crate::attest::quote::Quote;
use crate::attest::tpm::CredentialBlob;
use crate::beacon::SignedBeacon;
use crate::budget::Budget;
use crate::credential::head::{HeadVerified, credential_id};
use crate::credential::receipt::{Flushed, PutReceipt, Value};
use crate::credential::shard_map::{MapHolder, ShardMap};
use crate::credential::split::PutOrder;
use crate::error::Check;
use crate::limits::{ENROLMENT_MS, ENROLMENTS_OPEN_MAX, GROUPS_PER_TERMS};
use crate::membership::{Member, MemberRecord, Role};
use crate::suite::Generator;
use crate::ticket::TicketVerified;
use crate::types::{CredentialId, GroupId, HostId, HpkePublic, ShareIndex, Terms, Time, TransportKey};
use crate::view::View;
use crate::whereabouts::AddressBook;
use crate::wire::{DealBundle, EnrolHello, Holder, Placing, Standing};

/// What the coordinator last saw of a member.
#[derive(Debug, Clone)]
struct Sighting {
    appraised: Result<Appraised, Check>,
    /// Newest version of the records that it reads.
    word: VersionWord,
    /// It takes no new share.
    is_full: bool,
    /// Nothing reached it since it was heard last: no new share goes there.
    is_lost: bool,
}

impl Sighting {
    fn is_newer_than(&self, view: View<'_>, other: &Appraised) -> bool {
        let newer = |own: &Appraised| own.evidence().round > other.evidence().round && view.is_current(own);
        self.appraised.as_ref().is_ok_and(newer)
    }
}

/// An enrolment that waits for its answer.
struct Open {
    challenge: OpenChallenge,
    blobs: Vec<CredentialBlob>,
    deadline: Time,
    /// Whether the ticket names the machine: only such a one lets a member back that lost its state.
    names_machine: bool,
}

/// The coordinator's soft state.
#[derive(Default)]
pub struct State {
    open: BTreeMap<TransportKey, Open>,
    seen: BTreeMap<HostId, Sighting>,
    /// Seats from which the leader hears nothing now: no new share goes there.
    pub(crate) silent: BTreeSet<HostId>,
    /// For admissions that strangers send.
    pub(crate) admissions: Budget,
}

/// Answer to a joiner's first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Greeting {
    /// It was let in before, under these keys.
    AlreadyIn,
    /// It is to answer this.
    Challenge(Vec<CredentialBlob>),
}

/// A group that was drawn and is not recorded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGroup {
    /// The group.
    pub group: Group,
    /// The beacon that drew it.
    pub beacon: SignedBeacon,
    /// Hosts that did not stand.
    pub absent: Vec<HostId>,
}

/// Where an order may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// To a recorded group: what the dealer checks.
    Bundle(Box<DealBundle>),
    /// To a group that must be recorded first.
    New(NewGroup),
}

/// Whether a machine may come in, or come back.
fn check_enrolment(view: View<'_>, record: &MemberRecord, names_machine: bool) -> Result<(), Check> {
    let roll = view.records.roll();
    if names_machine && roll.get(&record.host).is_some() {
        roll.check_return(record)
    } else {
        roll.check_newcomer(record)
    }
}

impl State {
    /// Checks a joiner and challenges its TPM.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn greet(
        &mut self,
        view: View<'_>,
        generator: &mut Generator,
        from: &TransportKey,
        hello: &EnrolHello,
    ) -> Result<Greeting, Check> {
        let genesis = view.records.genesis().ok_or(Check::NotReady)?;
        if hello.keys.transport != *from {
            return Err(Check::Transport);
        }
        // Whoever was let in is told so, also when its ticket is past meanwhile, or with a newer one.
        let known = view.records.member_by_transport(from).map(Member::record);
        if known.is_some_and(|record| record.ak == hello.keys.ak) {
            return Ok(Greeting::AlreadyIn);
        }
        let ticket = TicketVerified::check(view.suite, genesis, &hello.ticket, view.now.wall_ms)?;
        if view.records.roll().admitted_by(&ticket.ticket().serial).is_some() {
            return Err(Check::TicketUsed);
        }
        let candidate = Candidate::check(view.suite, genesis, &ticket, &hello.keys, view.now.wall_ms)?;
        let names_machine = ticket.ticket().ek_hash.is_some();
        check_enrolment(view, candidate.record(), names_machine)?;
        // One enrolment per ticket: whoever has one ticket cannot keep the holders of others out.
        let serial = candidate.record().ticket;
        self.open.retain(|key, open| {
            view.now.monotonic < open.deadline && (key == from || open.challenge.record().ticket != serial)
        });
        // Asked again before it was answered: the same challenge, so that the answer to it still counts.
        if let Some(open) = self.open.get(from)
            && open.challenge.record() == candidate.record()
        {
            return Ok(Greeting::Challenge(open.blobs.clone()));
        }
        if self.open.len() >= ENROLMENTS_OPEN_MAX && !self.open.contains_key(from) {
            return Err(Check::NotReady); // others are answering theirs
        }
        let (challenge, blobs) = candidate.challenge(view.suite, generator)?;
        let deadline = view.now.monotonic.plus(ENROLMENT_MS);
        self.open.insert(*from, Open { challenge, blobs: blobs.clone(), deadline, names_machine });
        Ok(Greeting::Challenge(blobs))
    }

    /// Checks the answer to a challenge: the record that this member may sign.
    ///
    /// # Errors
    /// The first check that fails; the challenge is spent either way.
    pub fn admit(&mut self, view: View<'_>, from: &TransportKey, quote: &Quote) -> Result<MemberRecord, Check> {
        let open = self.open.remove(from).ok_or(Check::Challenge)?;
        if view.now.monotonic >= open.deadline {
            return Err(Check::Challenge);
        }
        let bound = open.challenge.record().digest(view.mesh);
        let record = open.challenge.check_answer(view.suite, view.mesh, &bound, quote)?;
        check_enrolment(view, &record, open.names_machine)?;
        Ok(record)
    }

    /// Appraises a member's evidence of this epoch and remembers the newest version of the records that it reads, and whether
    /// it takes no new share.
    pub fn see(
        &mut self,
        view: View<'_>,
        host: &HostId,
        signed: &SignedEvidence,
        (word, is_full): (VersionWord, bool),
    ) {
        let appraised = view.appraise(signed).map(|(appraised, _)| appraised);
        // Messages overtake each other: what comes late takes nothing back.
        let is_late = self.seen.get(host).is_some_and(|known| match &appraised {
            Err(check) => *check == Check::EvidenceStale,
            Ok(late) => known.is_newer_than(view, late),
        });
        if !is_late {
            self.seen.insert(*host, Sighting { appraised, word, is_full, is_lost: false });
        }
    }

    /// A message did not reach a member.
    pub fn lost(&mut self, host: &HostId) {
        if let Some(sighting) = self.seen.get_mut(host) {
            sighting.is_lost = true;
        }
    }

    /// How every member stands.
    pub fn standings(&self, view: View<'_>) -> BTreeMap<HostId, Standing> {
        let one = |member: &Member| {
            let host = member.record().host;
            let standing = match self.seen.get(&host).map(|sighting| &sighting.appraised) {
                Some(Ok(appraised)) if view.is_current(appraised) => Standing::Good,
                Some(Err(check)) => Standing::Refused(*check),
                Some(Ok(_)) | None => Standing::Absent,
            };
            (host, standing)
        };
        view.records.members().map(one).collect()
    }

    /// The current, good evidence of a member.
    fn evidence(&self, view: View<'_>, host: &HostId) -> Option<&SignedEvidence> {
        let appraised = self.seen.get(host)?.appraised.as_ref().ok()?;
        view.is_current(appraised).then(|| appraised.signed())
    }

    fn holder(&self, view: View<'_>, host: &HostId) -> Result<Holder, Check> {
        let member = view.records.member(host).ok_or(Check::Membership)?;
        let evidence = self.evidence(view, host).ok_or(Check::EvidenceMissing)?.clone();
        Ok(Holder { admission: member.admission().clone(), evidence })
    }

    /// Finds the group for an order: an active one of the same terms whose holders all stand, else a new one. Hosts that
    /// failed who asks are passed over; where the rest cannot meet the terms, the half of them that failed first is not.
    ///
    /// # Errors
    /// [`Check::Spread`] where the hosts that stand cannot meet the terms, or another check.
    pub fn place(&self, view: View<'_>, coordinator: &HostId, placing: &Placing) -> Result<Placed, Check> {
        let Placing { order, without } = placing;
        let place = |without: &[HostId]| {
            let passes = |group: &&Group| !group.holders.iter().any(|host| without.contains(host));
            let usable = || view.records.groups().filter(|group| self.may_take(view, group, order.terms));
            match usable().find(passes) {
                Some(group) => self.bundle(view, coordinator, order, group).map(Placed::Bundle),
                // Whoever asks chooses among groups, not how many there are.
                None if usable().nth(GROUPS_PER_TERMS).is_some() => Err(Check::Capacity),
                None => self.draw(view, order, without).map(Placed::New),
            }
        };
        let mut passed_over = without.as_slice();
        loop {
            match place(passed_over) {
                Err(_) if !passed_over.is_empty() => {
                    passed_over = passed_over.split_at(passed_over.len().div_ceil(2)).1;
                }
                done => return done,
            }
        }
    }

    /// Whether a group takes new values of these terms.
    fn may_take(&self, view: View<'_>, group: &Group, terms: Terms) -> bool {
        group.terms == terms
            && group.holders.iter().all(|host| self.takes_shares(view, host))
            && view.records.is_still_spread(group)
    }

    /// What whoever deals to this very group checks.
    ///
    /// # Errors
    /// [`Check::Group`] where it takes none now.
    pub fn bundle_of(
        &self,
        view: View<'_>,
        coordinator: &HostId,
        order: &PutOrder,
        id: &GroupId,
    ) -> Result<Box<DealBundle>, Check> {
        let group = view.records.group(id).filter(|group| self.may_take(view, group, order.terms));
        self.bundle(view, coordinator, order, group.ok_or(Check::Group)?)
    }

    fn bundle(
        &self,
        view: View<'_>,
        coordinator: &HostId,
        order: &PutOrder,
        group: &Group,
    ) -> Result<Box<DealBundle>, Check> {
        let holders = group.holders.iter().map(|host| self.holder(view, host)).collect::<Result<Vec<_>, _>>()?;
        let coordinator = self.holder(view, coordinator)?;
        let genesis = view.records.genesis().ok_or(Check::NotReady)?.signed().clone();
        let id = credential_id(&order.client, &order.name);
        Ok(Box::new(DealBundle {
            genesis,
            epochs: self.epochs_of(view, &holders, &coordinator),
            group: group.id,
            generation: group.generation,
            holders,
            coordinator,
            previous: view.records.credential(&id).map(|credential| credential.head.signed().clone()),
        }))
    }

    fn epochs_of(&self, view: View<'_>, holders: &[Holder], coordinator: &Holder) -> Vec<SignedBeacon> {
        let rounds: BTreeSet<_> =
            holders.iter().chain([coordinator]).map(|holder| holder.evidence.evidence.round).collect();
        let epoch = |round| view.epochs.current_at(view.calendar, view.now, round);
        rounds.into_iter().filter_map(epoch).map(|epoch| epoch.signed().clone()).collect()
    }

    /// Draws a new group among the hosts that stand: the record says who did not.
    fn draw(&self, view: View<'_>, order: &PutOrder, without: &[HostId]) -> Result<NewGroup, Check> {
        let epoch = view.epochs.current(view.calendar, view.now).ok_or(Check::OwnEpoch)?;
        let hosts = || view.records.members().map(Member::record).filter(|record| record.role == Role::Host);
        let others = |counts: &dyn Fn(&HostId) -> bool| -> Vec<HostId> {
            hosts().map(|record| record.host).filter(|host| !counts(host)).collect()
        };
        let draw = |absent: &[HostId]| view.records.draw(order.terms, epoch, absent);
        let absent = others(&|host| self.takes_shares(view, host) && !without.contains(host));
        let group = draw(&absent).map_err(|check| match () {
            // It is tried again, past fewer: only the last word needs a reason, and a reason costs two draws.
            () if !without.is_empty() => check,
            () if draw(&others(&|host| self.may_hold(view, host))).is_ok() => Check::Capacity,
            // Could all hosts together meet the terms, it is a matter of waiting for those that do not stand.
            () if draw(&[]).is_ok() => Check::EvidenceMissing,
            () => check,
        })?;
        Ok(NewGroup { group, beacon: epoch.signed().clone(), absent })
    }

    /// Hosts that take no new share.
    pub fn full_hosts(&self) -> impl Iterator<Item = HostId> {
        self.seen.iter().filter(|(_, sighting)| sighting.is_full).map(|(host, _)| *host)
    }

    /// Whether a member has shown good evidence of a current epoch.
    pub fn stands(&self, view: View<'_>, host: &HostId) -> bool {
        self.evidence(view, host).is_some()
    }

    /// Whether everybody who stands reads this version of the records.
    pub fn all_read(&self, view: View<'_>, version: u16) -> bool {
        let mut standing = self.seen.iter().filter(|(host, _)| self.stands(view, host));
        standing.all(|(_, sighting)| sighting.word.version >= version)
    }

    /// What these hosts said last about the versions that they read.
    pub fn words(&self, of: &[HostId]) -> Vec<VersionWord> {
        of.iter().filter_map(|host| self.seen.get(host)).map(|sighting| sighting.word.clone()).collect()
    }

    /// The session key in a member's current, good evidence.
    pub fn session_of(&self, view: View<'_>, host: &HostId) -> Option<HpkePublic> {
        self.evidence(view, host).map(|signed| signed.evidence.session)
    }

    /// Whether new shares may be dealt to a host now: it has room, too.
    fn takes_shares(&self, view: View<'_>, host: &HostId) -> bool {
        self.may_hold(view, host) && self.seen.get(host).is_some_and(|sighting| !sighting.is_full)
    }

    /// Whether a host is to be counted on now: it stands, and its peers have unlocked it.
    pub fn may_hold(&self, view: View<'_>, host: &HostId) -> bool {
        let is_lost = view.records.roll().is_leaving(host)
            || self.silent.contains(host)
            || self.seen.get(host).is_some_and(|sighting| sighting.is_lost);
        !is_lost && self.evidence(view, host).is_some_and(|signed| signed.evidence.share_receiving != HpkePublic::ZERO)
    }

    /// Checks a new value's receipts: the command to record. What the records would not take is left out, so that one bad
    /// receipt spoils no put.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn check_put(view: View<'_>, head: &HeadVerified, receipts: &[PutReceipt]) -> Result<Command, Check> {
        view.records.credentials().check_value(head)?;
        let in_time = |receipt: &PutReceipt| !has_expired(receipt.round, view.records.round());
        let holds = |receipt: &&PutReceipt| {
            receipt.head == *head.digest() && in_time(receipt) && view.records.receipt_holds(view.suite, receipt)
        };
        let receipts: Vec<&PutReceipt> = receipts.iter().filter(holds).collect();
        let first = receipts.first().ok_or(Check::Receipts)?;
        let (group, generation, commitments) = (first.group, first.generation, first.commitments);
        let of_group = view.records.group(&group).ok_or(Check::Group)?;
        if of_group.generation != generation || of_group.terms != head.head().terms {
            return Err(Check::Group);
        }
        if !view.records.is_still_spread(of_group) {
            return Err(Check::Spread);
        }
        let same = |receipt: &&&PutReceipt| {
            (receipt.group, receipt.generation, receipt.commitments) == (group, generation, commitments)
                && of_group.holder_of(receipt.index) == Some(&receipt.holder)
        };
        let flushed: BTreeMap<ShareIndex, Flushed> =
            receipts.iter().filter(same).map(|receipt| (receipt.index, Flushed::from(*receipt))).collect();
        if flushed.len() < usize::from(of_group.terms.quorum()) {
            return Err(Check::Receipts);
        }
        let value = Value { group, generation, commitments, flushed: flushed.into_values().collect() };
        Ok(Command::Head { head: head.signed().clone(), value })
    }

    /// The map for an instance: its evidence must be good and the owner must allow it.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn map_for_reader(
        &self,
        view: View<'_>,
        book: &AddressBook,
        id: &CredentialId,
        signed: &SignedEvidence,
    ) -> Result<(ShardMap, Vec<String>), Check> {
        let (_, reader) = view.appraise(signed)?;
        let credential = present(view, id)?;
        credential.head.head().check_reader(reader)?;
        Ok((self.map(view, book, credential)?, vec![reader.map_recipient.clone()]))
    }

    /// The map for the owner's own recipients: whoever carries it cannot read it.
    ///
    /// # Errors
    /// [`Check::Unknown`] where there is no such credential or it names no recipient.
    pub fn map_for_owner(
        &self,
        view: View<'_>,
        book: &AddressBook,
        id: &CredentialId,
    ) -> Result<(ShardMap, Vec<String>), Check> {
        let credential = present(view, id)?;
        let recipients = credential.head.head().recipients.clone();
        if recipients.is_empty() { Err(Check::Unknown) } else { Ok((self.map(view, book, credential)?, recipients)) }
    }

    fn map(&self, view: View<'_>, book: &AddressBook, credential: &Credential) -> Result<ShardMap, Check> {
        let group = view.records.group(&credential.group).ok_or(Check::Group)?;
        let holder = |host: &HostId| {
            let departed = || view.records.roll().departed(host);
            let record = view.records.member(host).map(Member::record).or_else(departed)?;
            let address = book.address_of(&record.transport);
            Some(MapHolder { host: *host, name: record.name.clone(), transport: record.transport, address })
        };
        Ok(ShardMap {
            mesh: *view.mesh,
            head: credential.head.signed().clone(),
            generation: credential.generation,
            commitments: credential.commitments,
            holders: group.holders.iter().map(holder).collect::<Option<Vec<_>>>().ok_or(Check::Membership)?,
        })
    }
}

fn present<'a>(view: View<'a>, id: &CredentialId) -> Result<&'a Credential, Check> {
    view.records.credential(id).filter(|credential| credential.is_there()).ok_or(Check::Unknown)
}
