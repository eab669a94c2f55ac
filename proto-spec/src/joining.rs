//! A joiner's side of enrolment: measure → hello → a challenge of each committee member → an answer to each → their
//! parts of the admission → the record. It asks again until it is in or its time is up.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::attest::enroll::{EkOffer, JoinerKeys, answer_digest, member_record};
use crate::attest::tpm::{CredentialBlob, EkPublic};
use crate::cms::committee::{FOUNDERS, FOUNDERS_T};
use crate::error::Check;
use crate::limits::{JOIN_RETRY_MS, JOIN_UNREACHABLE_MS};
use crate::membership::MemberRecord;
use crate::signing::Parts;
use crate::ticket::{Contact, Pins, SignedTicket, Ticket};
use crate::types::{BlsSignature, Digest, RequestId, SecretBytes, ShareIndex, Time, TransportKey, sha256};
use crate::wire::{Address, EnrolHello, Message};

/// A joining under way.
pub struct Joining {
    /// The ticket's content.
    pub ticket: Ticket,
    /// Names this joining.
    pub request: RequestId,
    /// The ticket as it was signed.
    pub signed: SignedTicket,
    /// When it is given up; never while the mesh is forming.
    pub deadline: Option<Time>,
    /// When it asks again.
    pub retry_at: Option<Time>,
    /// Whom the ticket names, or the person at the socket: who they are is the word of whoever signed it.
    pub contacts: Vec<Contact>,
    /// The committee, as each of those says: one that lies hides none that others name.
    named: BTreeMap<TransportKey, Vec<Contact>>,
    /// What it pins: what the ticket says, or where that was written before there was a mesh key, what the host that
    /// wrote the ticket says now.
    pub pins: Option<Pins>,
    /// Where this host listens.
    address: Address,
    keys: Option<JoinerKeys>,
    greeted: BTreeSet<TransportKey>,
    /// One part of each member: what it says of the dealing and its threshold counts only with others that say the same.
    parts: BTreeMap<TransportKey, (u64, u8, ShareIndex, BlsSignature)>,
    /// Sets of parts that made no signature: the next set is another one.
    vain: u64,
    /// Whether parts are asked for anew, though there are enough.
    anew: bool,
    refused: BTreeSet<TransportKey>,
    /// Challenges that wait for the TPM: it does one thing at a time, and a large committee sends many.
    challenges: BTreeMap<TransportKey, Vec<CredentialBlob>>,
    /// How many challenges of each the TPM was given.
    taken: BTreeMap<TransportKey, u32>,
}

impl Joining {
    /// Begins.
    ///
    /// # Errors
    /// [`Check::TicketSignature`] where the file is no ticket.
    pub fn new(
        signed: SignedTicket,
        request: RequestId,
        address: Address,
        deadline: Option<Time>,
    ) -> Result<Self, Check> {
        let ticket = signed.ticket().ok_or(Check::TicketSignature)?;
        Ok(Self {
            contacts: ticket.contacts.clone(),
            named: BTreeMap::new(),
            pins: ticket.pins.key.map(|_| ticket.pins.clone()),
            ticket,
            request,
            signed,
            deadline,
            retry_at: None,
            address,
            keys: None,
            greeted: BTreeSet::new(),
            parts: BTreeMap::new(),
            vain: 0,
            anew: false,
            refused: BTreeSet::new(),
            challenges: BTreeMap::new(),
            taken: BTreeMap::new(),
        })
    }

    /// Whom it asks, each once, where the ticket or the first that named it says that it is.
    pub fn asked(&self) -> impl Iterator<Item = &Contact> {
        let mut seen = BTreeSet::new();
        let all = || self.contacts.iter().chain(self.named.values().flatten());
        let somewhere = all().filter(|contact| !contact.address.0.is_empty());
        somewhere.chain(all()).filter(move |contact| seen.insert(contact.transport))
    }

    /// Whether this host is one of those that it asks.
    pub fn asks(&self, key: &TransportKey) -> bool {
        self.support(key) > 0
    }

    /// How many name this host: the ticket, and those whom it names.
    fn support(&self, key: &TransportKey) -> usize {
        let lists = std::iter::once(&self.contacts).chain(self.named.values());
        lists.filter(|list| list.iter().any(|contact| contact.transport == *key)).count()
    }

    /// The keys are complete.
    pub fn measured(&mut self, keys: JoinerKeys) {
        self.keys = Some(keys);
    }

    /// What it shows, once its keys are complete.
    pub fn hello(&self) -> Option<EnrolHello> {
        let keys = self.keys.clone()?;
        let (request, ticket) = (self.request, self.signed.clone());
        Some(EnrolHello { request, ticket, keys, address: self.address.clone() })
    }

    /// Somebody names the committee. Says whether that counts: only those whom the ticket names may, and the mesh and its key
    /// are those that are pinned.
    pub fn named(&mut self, from: &TransportKey, pins: Pins, committee: Vec<Contact>) -> bool {
        let same_key = self.ticket.pins.key.is_none_or(|key| pins.key == Some(key));
        let known = self.pins.as_ref().is_none_or(|known| *known == pins);
        let is_named = self.contacts.iter().any(|contact| contact.transport == *from);
        if !is_named || pins.mesh != self.ticket.pins.mesh || pins.key.is_none() || !same_key || !known {
            return false;
        }
        self.pins = Some(pins);
        self.named.insert(*from, committee);
        let asked: BTreeSet<TransportKey> = self.asked().map(|contact| contact.transport).collect();
        self.challenges.retain(|from, _| asked.contains(from));
        self.taken.retain(|from, _| asked.contains(from));
        self.parts.retain(|from, _| asked.contains(from));
        self.greeted.retain(|to| asked.contains(to));
        self.refused.retain(|from| asked.contains(from));
        true
    }

    /// What is sent now and again: to all the parts, once they are enough; until then, or where they made no signature, a
    /// hello: the key may have moved, and who gave a part gives another.
    pub fn messages(&mut self, now: Time) -> Vec<(Contact, Message)> {
        self.retry_at = Some(now.plus(JOIN_RETRY_MS));
        let admit = self.admit();
        let greets = admit.is_none() || std::mem::take(&mut self.anew);
        let admits = admit.into_iter().flat_map(|admit| self.asked().map(move |to| (to.clone(), admit.clone())));
        let mut messages: Vec<(Contact, Message)> = admits.collect();
        if greets {
            self.greeted.clear();
            messages.extend(self.greetings());
        }
        messages
    }

    /// A hello to each of whom this joiner has just been told.
    pub fn greetings(&mut self) -> Vec<(Contact, Message)> {
        let Some(hello) = self.hello() else { return Vec::new() };
        let fresh = |contact: &&Contact| !self.greeted.contains(&contact.transport);
        let fresh: Vec<Contact> = self.asked().filter(fresh).cloned().collect();
        self.greeted.extend(fresh.iter().map(|contact| contact.transport));
        fresh.into_iter().map(|contact| (contact, Message::EnrolHello(hello.clone()))).collect()
    }

    /// The record that this joiner asks for, and that its quotes cover.
    pub fn record(&self) -> Option<MemberRecord> {
        let keys = self.keys.as_ref()?;
        let parse = |offer: &EkOffer| EkPublic::parse(&offer.public).ok();
        let eks: Vec<EkPublic> = keys.eks.iter().map(parse).collect::<Option<_>>()?;
        Some(member_record(&self.ticket, keys, &eks))
    }

    /// Somebody that is asked sent a challenge; its newest counts.
    pub fn challenged(&mut self, from: TransportKey, blobs: Vec<CredentialBlob>) {
        self.challenges.insert(from, blobs);
    }

    /// The challenge that the TPM is given next: of whom it was given the fewest, and of these of whom most name. Whoever gave
    /// its part is asked again with the others, and sends another challenge: it must not come before those that the TPM has
    /// not reached yet. Nor may those come first whom one liar names.
    pub fn next_challenge(&mut self) -> Option<(TransportKey, Vec<CredentialBlob>)> {
        let turn = |from: &TransportKey| (self.taken.get(from).copied().unwrap_or(0), Reverse(self.support(from)));
        let from = self.challenges.keys().copied().min_by_key(turn)?;
        let times = self.taken.entry(from).or_default();
        *times = times.saturating_add(1);
        self.challenges.remove(&from).map(|blobs| (from, blobs))
    }

    /// The TPM gave up the secrets of a challenge: what to quote over.
    pub fn opened(&self, secrets: &[SecretBytes]) -> Option<Digest> {
        let mesh = &self.ticket.pins.mesh;
        Some(answer_digest(mesh, secrets, &self.record()?.digest(mesh)))
    }

    /// A committee member's part. Says whether there are enough that fit together now.
    pub fn part(&mut self, from: TransportKey, key_epoch: u64, t: u8, index: ShareIndex, part: BlsSignature) -> bool {
        let had_enough = self.enough().is_some();
        self.parts.insert(from, (key_epoch, t, index, part));
        !had_enough && self.enough().is_some()
    }

    /// Parts of one dealing, as many as its threshold. Which ones changes each time that some made no signature: somebody
    /// gave a bad one, or one under the number of another, or the key has moved.
    fn enough(&self) -> Option<Parts> {
        let place = |from: &TransportKey| sha256(&[self.vain.to_be_bytes().as_slice(), &from.0].concat());
        let mut parts: Vec<_> = self.parts.iter().collect();
        if self.vain > 0 {
            parts.sort_unstable_by_key(|(from, _)| place(from));
        }
        let together = |(key_epoch, t): (u64, u8)| -> Option<Parts> {
            let mut set = Parts::new();
            let same = parts.iter().filter(|(_, (epoch, threshold, ..))| (*epoch, *threshold) == (key_epoch, t));
            for (_, (.., index, part)) in same {
                if set.len() < usize::from(t) {
                    set.entry(*index).or_insert(*part);
                }
            }
            (t >= FOUNDERS_T && set.len() == usize::from(t)).then_some(set)
        };
        parts.iter().find_map(|(_, (key_epoch, t, ..))| together((*key_epoch, *t)))
    }

    fn admit(&self) -> Option<Message> {
        let parts = self.enough()?.into_iter().collect();
        Some(Message::EnrolAdmit { request: self.request, record: Box::new(self.record()?), parts })
    }

    /// One of the committee refused for good. Says whether too few are left: no single one keeps a joiner out. Those whom the
    /// ticket names count, where they are enough.
    pub fn refused(&mut self, from: TransportKey) -> bool {
        self.refused.insert(from);
        let of_ticket = self.contacts.iter().map(|contact| contact.transport);
        let counts: BTreeSet<TransportKey> = if self.contacts.len() < FOUNDERS {
            self.asked().map(|contact| contact.transport).collect()
        } else {
            of_ticket.collect()
        };
        2 * self.refused.intersection(&counts).count() > counts.len() || counts.len() < FOUNDERS
    }

    /// Somebody says that the parts make no signature. That may be a lie, so none is forgotten: others are tried in their turn,
    /// and all are asked for anew then.
    pub fn in_vain(&mut self) {
        self.vain = self.vain.saturating_add(1);
        self.anew = true;
    }

    /// All are asked again.
    pub fn begin_again(&mut self) {
        self.parts.clear();
    }

    /// A contact cannot be reached: where it is the only one, the person at the socket does not wait for all of the
    /// time that a slow chip may take.
    pub fn unreachable(&mut self, now: Time) {
        if self.contacts.len() == 1 && self.parts.is_empty() {
            self.deadline = self.deadline.map(|deadline| deadline.min(now.plus(JOIN_UNREACHABLE_MS)));
        }
    }
}
