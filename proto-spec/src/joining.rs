//! A joiner's side of enrolment: measure → hello → a challenge of each committee member → an answer to each → their
//! parts of the admission → the record. It asks again until it is in or its time is up.

use std::collections::{BTreeMap, BTreeSet};

use crate::attest::enroll::{EkOffer, JoinerKeys, answer_digest, member_record};
use crate::attest::tpm::{CredentialBlob, EkPublic};
use crate::cms::committee::{FOUNDERS, FOUNDERS_T};
use crate::error::Check;
use crate::limits::{JOIN_RETRY_MS, JOIN_UNREACHABLE_MS};
use crate::membership::MemberRecord;
use crate::signing::Parts;
use crate::ticket::{Contact, Pins, SignedTicket, Ticket};
use crate::types::{BlsSignature, Digest, RequestId, SecretBytes, ShareIndex, Time, TransportKey};
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
    /// Whom it asks: first those whom the ticket names, then the committee that they name.
    pub contacts: Vec<Contact>,
    /// What it pins: what the ticket says, or where that was written before there was a mesh key, what the host that
    /// wrote the ticket says now.
    pub pins: Option<Pins>,
    /// Where this host listens.
    address: Address,
    keys: Option<JoinerKeys>,
    asked: BTreeSet<TransportKey>,
    /// One part of each member: what it says of the dealing and its threshold counts only with others that say the same.
    parts: BTreeMap<TransportKey, (u64, u8, ShareIndex, BlsSignature)>,
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
            pins: ticket.pins.key.map(|_| ticket.pins.clone()),
            ticket,
            request,
            signed,
            deadline,
            retry_at: None,
            address,
            keys: None,
            asked: BTreeSet::new(),
            parts: BTreeMap::new(),
            refused: BTreeSet::new(),
            challenges: BTreeMap::new(),
            taken: BTreeMap::new(),
        })
    }

    /// Whether this host is one of those that it asks.
    pub fn asks(&self, key: &TransportKey) -> bool {
        self.contacts.iter().any(|contact| contact.transport == *key)
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

    /// The committee is named. Says whether that can be: the mesh and its key are those that are pinned.
    pub fn named(&mut self, pins: Pins, committee: Vec<Contact>) -> bool {
        let same_key = self.ticket.pins.key.is_none_or(|key| pins.key == Some(key));
        let known = self.pins.as_ref().is_none_or(|known| *known == pins);
        if pins.mesh != self.ticket.pins.mesh || pins.key.is_none() || !same_key || !known || committee.is_empty() {
            return false;
        }
        self.pins = Some(pins);
        // Where the person at the socket said that a host is, it is.
        let is_in = |list: &[Contact], one: &Contact| list.iter().any(|other| other.transport == one.transport);
        self.contacts.retain(|contact| is_in(&committee, contact) && !contact.address.0.is_empty());
        let fresh: Vec<Contact> = committee.into_iter().filter(|one| !is_in(&self.contacts, one)).collect();
        self.contacts.extend(fresh);
        true
    }

    /// The messages to send now: a hello to whom has not given its part, the parts once they are enough.
    pub fn messages(&mut self, now: Time, all: bool) -> Vec<(Contact, Message)> {
        let Some(hello) = self.hello() else { return Vec::new() };
        self.retry_at = Some(now.plus(JOIN_RETRY_MS));
        let admit = self.admit();
        let mut messages = Vec::new();
        for contact in &self.contacts {
            if let Some(admit) = &admit {
                messages.push((contact.clone(), admit.clone()));
            } else if all || !self.asked.contains(&contact.transport) {
                self.asked.insert(contact.transport);
                messages.push((contact.clone(), Message::EnrolHello(hello.clone())));
            }
        }
        messages
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

    /// The challenge that the TPM is given next: of whom it was given the fewest. Whoever gave its part is asked again with
    /// the others, and sends another challenge: it must not come before those that the TPM has not reached yet.
    pub fn next_challenge(&mut self) -> Option<(TransportKey, Vec<CredentialBlob>)> {
        let taken = |from: &TransportKey| self.taken.get(from).copied().unwrap_or(0);
        let from = self.challenges.keys().copied().min_by_key(taken)?;
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

    /// Parts of one dealing, as many as its threshold.
    fn enough(&self) -> Option<Parts> {
        let together = |(key_epoch, t): (u64, u8)| -> Option<Parts> {
            let same = self.parts.values().filter(|(epoch, threshold, ..)| (*epoch, *threshold) == (key_epoch, t));
            let parts: Parts = same.map(|(.., index, part)| (*index, *part)).collect();
            (t >= FOUNDERS_T && parts.len() >= usize::from(t)).then_some(parts)
        };
        self.parts.values().find_map(|(key_epoch, t, ..)| together((*key_epoch, *t)))
    }

    fn admit(&self) -> Option<Message> {
        let parts = self.enough()?.into_iter().collect();
        Some(Message::EnrolAdmit { request: self.request, record: Box::new(self.record()?), parts })
    }

    /// One of the committee refused for good. Says whether too few are left: no single one keeps a joiner out.
    pub fn refused(&mut self, from: TransportKey) -> bool {
        self.refused.insert(from);
        2 * self.refused.len() > self.contacts.len() || self.contacts.len() < FOUNDERS
    }

    /// Parts that did not add up are asked for again.
    pub fn begin_again(&mut self) {
        self.parts.clear();
        self.asked.clear();
    }

    /// A contact cannot be reached: where it is the only one, the person at the socket does not wait for all of the
    /// time that a slow chip may take.
    pub fn unreachable(&mut self, now: Time) {
        if self.contacts.len() == 1 && self.parts.is_empty() {
            self.deadline = self.deadline.map(|deadline| deadline.min(now.plus(JOIN_UNREACHABLE_MS)));
        }
    }
}
