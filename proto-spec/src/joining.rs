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
    /// When it is given up because the only host that it could ask cannot be reached.
    silent_until: Option<Time>,
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
    /// Whether parts were sent since the last that made none.
    tried: bool,
    /// Whether this try was made before its time, since there were enough parts.
    early: bool,
    /// Whether parts are asked for anew, though there are enough.
    anew: bool,
    /// Tries so far.
    turns: usize,
    /// Who has named the committee since the last try.
    heard: BTreeSet<TransportKey>,
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
            silent_until: None,
            retry_at: None,
            address,
            keys: None,
            greeted: BTreeSet::new(),
            parts: BTreeMap::new(),
            vain: 0,
            tried: false,
            early: false,
            anew: false,
            turns: 0,
            heard: BTreeSet::new(),
            refused: BTreeSet::new(),
            challenges: BTreeMap::new(),
            taken: BTreeMap::new(),
        })
    }

    /// Whom it asks, each once. Where the ticket and those who name a host say several addresses, each has its turn.
    pub fn asked(&self) -> Vec<Contact> {
        self.asked_in(self.turns)
    }

    /// The same, with the addresses that were said first.
    pub fn first_asked(&self) -> Vec<Contact> {
        self.asked_in(0)
    }

    fn asked_in(&self, turn: usize) -> Vec<Contact> {
        let all = || self.contacts.iter().chain(self.named.values().flatten());
        let somewhere = all().filter(|contact| !contact.address.0.is_empty());
        let mut order: Vec<TransportKey> = Vec::new();
        let mut addresses: BTreeMap<TransportKey, Vec<&Address>> = BTreeMap::new();
        for Contact { transport, address } in somewhere.chain(all()) {
            let known = addresses.entry(*transport).or_insert_with(|| {
                order.push(*transport);
                Vec::new()
            });
            if !address.0.is_empty() && !known.contains(&address) {
                known.push(address);
            }
        }
        let place = |transport: &TransportKey| {
            let known = addresses.get(transport)?;
            known.get(turn.checked_rem(known.len())?).copied().cloned()
        };
        let contact = |transport| Contact { transport, address: place(&transport).unwrap_or_default() };
        order.into_iter().map(contact).collect()
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

    /// Whether one alone names this host, of enough that several could.
    fn is_obscure(&self, key: &TransportKey) -> bool {
        let names = |list: &&Vec<Contact>| list.iter().any(|contact| contact.transport == *key);
        self.named.len() >= FOUNDERS && self.named.values().filter(names).count() < 2
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

    /// Whether it has come to a mesh that is forming, and waits for that.
    pub const fn waits(&self) -> bool {
        self.deadline.is_none()
    }

    /// Whether its ticket was shown to this host.
    pub fn has_greeted(&self, key: &TransportKey) -> bool {
        self.greeted.contains(key)
    }

    /// When it is given up.
    pub fn gives_up_at(&self) -> Option<Time> {
        let silent = self.silent_until.filter(|_| self.named.is_empty() && self.parts.is_empty());
        self.deadline.map(|deadline| silent.map_or(deadline, |until| deadline.min(until)))
    }

    /// Somebody names the committee, each of it under one address. Says whether that counts: only those whom the ticket names
    /// may, and the mesh and its key are those that are pinned.
    pub fn named(&mut self, from: &TransportKey, pins: Pins, mut committee: Vec<Contact>) -> bool {
        let same_key = self.ticket.pins.key.is_none_or(|key| pins.key == Some(key));
        let known = self.pins.as_ref().is_none_or(|known| *known == pins);
        let is_named = self.contacts.iter().any(|contact| contact.transport == *from);
        if !is_named || pins.mesh != self.ticket.pins.mesh || pins.key.is_none() || !same_key || !known {
            return false;
        }
        // Once between two tries: whoever names others all the time would have this joiner ask them all the time.
        if !self.heard.insert(*from) {
            return false;
        }
        self.pins = Some(pins);
        let mut seen = BTreeSet::new();
        committee.retain(|contact| seen.insert(contact.transport));
        self.named.insert(*from, committee);
        let asked: BTreeSet<TransportKey> = self.asked().into_iter().map(|contact| contact.transport).collect();
        self.challenges.retain(|from, _| asked.contains(from));
        self.taken.retain(|from, _| asked.contains(from));
        self.parts.retain(|from, _| asked.contains(from));
        self.greeted.retain(|to| asked.contains(to));
        self.refused.retain(|from| asked.contains(from));
        true
    }

    /// What is sent now and again: to all the parts, once they are enough; until then, or where they made no signature or
    /// nobody answered, a hello: the key may have moved, and who gave a part gives another; or others may lead.
    pub fn messages(&mut self, now: Time) -> Vec<(Contact, Message)> {
        if self.retry_at.is_none_or(|at| now >= at) {
            self.early = false;
            self.heard.clear();
        }
        self.retry_at = Some(now.plus(JOIN_RETRY_MS));
        let admit = self.admit();
        let is_unanswered = self.tried;
        self.tried |= admit.is_some();
        let greets = admit.is_none() || std::mem::take(&mut self.anew) || is_unanswered;
        let admits = admit.into_iter().flat_map(|admit| self.asked().into_iter().map(move |to| (to, admit.clone())));
        let mut messages: Vec<(Contact, Message)> = admits.collect();
        if greets {
            self.greeted.clear();
            messages.extend(self.greetings());
        }
        self.turns = self.turns.wrapping_add(1);
        messages
    }

    /// A hello to each of whom this joiner has just been told.
    pub fn greetings(&mut self) -> Vec<(Contact, Message)> {
        let Some(hello) = self.hello() else { return Vec::new() };
        let mut fresh = self.asked();
        fresh.retain(|contact| !self.greeted.contains(&contact.transport));
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
        self.refused.remove(&from);
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

    /// A committee member's part. Says whether there are enough that fit together now, once for each try: whoever gives a part
    /// and takes it back again makes no tries of its own.
    pub fn part(&mut self, from: TransportKey, key_epoch: u64, t: u8, index: ShareIndex, part: BlsSignature) -> bool {
        let had_enough = self.enough().is_some();
        self.parts.insert(from, (key_epoch, t, index, part));
        let has_enough_now = !had_enough && self.enough().is_some();
        has_enough_now && !std::mem::replace(&mut self.early, true)
    }

    /// Parts of one dealing, as many as its threshold. Which ones changes each time that some made no signature: somebody gave a
    /// bad one, or one under the number of another, or the key has moved. Every other time first those of whom several name:
    /// one liar can name many; but of a committee that has changed the honest may be named by one alone, and the liar by all.
    fn enough(&self) -> Option<Parts> {
        let place = |from: &TransportKey| {
            let drawn = sha256(&[self.vain.to_be_bytes().as_slice(), &from.0].concat());
            (self.vain.is_multiple_of(2) && self.is_obscure(from), (self.vain > 0).then_some(drawn))
        };
        let mut parts: Vec<_> = self.parts.iter().collect();
        parts.sort_by_cached_key(|(from, _)| place(from));
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
    /// ticket names count, where they are enough; or those whom most lists name, where the ticket's hosts sit no more.
    pub fn refused(&mut self, from: TransportKey) -> bool {
        self.refused.insert(from);
        let most =
            |hosts: &[TransportKey]| 2 * hosts.iter().filter(|host| self.refused.contains(host)).count() > hosts.len();
        let of_ticket: Vec<TransportKey> = self.contacts.iter().map(|contact| contact.transport).collect();
        let mut asked: Vec<TransportKey> = self.asked().into_iter().map(|contact| contact.transport).collect();
        if of_ticket.len() < FOUNDERS {
            return asked.len() < FOUNDERS || most(&asked);
        }
        let lists = self.named.len() + 1;
        asked.retain(|host| 2 * self.support(host) > lists);
        most(&of_ticket) || (self.named.len() >= FOUNDERS && asked.len() >= FOUNDERS && most(&asked))
    }

    /// Somebody says that the parts make no signature. That may be a lie, so none is forgotten: others are tried in their turn,
    /// and all are asked for anew then. Once for each try: however often a liar says it, it has no say in which come next.
    pub fn in_vain(&mut self) {
        if std::mem::take(&mut self.tried) {
            self.vain = self.vain.saturating_add(1);
            self.anew = true;
        }
    }

    /// All are asked again.
    pub fn begin_again(&mut self) {
        self.parts.clear();
    }

    /// A host cannot be reached: where it is the only contact, and says nothing, the person at the socket does not wait for
    /// all of the time that a slow chip may take.
    pub fn unreachable(&mut self, now: Time, to: &TransportKey) {
        if matches!(self.contacts.as_slice(), [contact] if contact.transport == *to) {
            self.silent_until.get_or_insert(now.plus(JOIN_UNREACHABLE_MS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Role;
    use crate::types::{BlsPublic, MeshId, TicketSerial};
    use crate::wire;

    const T: u8 = 3;

    fn key(number: u8) -> TransportKey {
        TransportKey([number; 32])
    }

    fn contact(number: u8, address: &str) -> Contact {
        Contact { transport: key(number), address: Address(address.to_owned()) }
    }

    fn pins() -> Pins {
        Pins { mesh: MeshId([7; 32]), key: Some(BlsPublic([8; 96])) }
    }

    /// A joiner with a ticket that names hosts from 1 on.
    fn joining(contacts: u8) -> Joining {
        let contacts = (1..=contacts).map(|number| contact(number, "here")).collect();
        let serial = TicketSerial([1; 16]);
        let text = || "one".to_owned();
        let ticket = Ticket::new(pins(), contacts, text(), Role::Host, text(), text(), text(), serial, 1, None);
        let signed = SignedTicket { bytes: wire::encode(&ticket), signature: String::new() };
        let request = RequestId([2; 16]);
        let mut joining = Joining::new(signed, request, Address(text()), Some(Time(60_000))).unwrap();
        joining.measured(JoinerKeys {
            eks: Vec::new(),
            intermediates: Vec::new(),
            ak: Vec::new(),
            transport: key(200),
            vote: BlsPublic([0; 96]),
            vote_proof: BlsSignature([0; 48]),
            map_recipient: String::new(),
            pcrs: BTreeMap::new(),
        });
        joining
    }

    fn gives_part(joining: &mut Joining, number: u8) {
        joining.part(key(number), 1, T, ShareIndex(number), BlsSignature([number; 48]));
    }

    /// Whose parts are sent with the next try.
    fn next_set(joining: &mut Joining) -> Vec<u8> {
        let messages = joining.messages(Time(0));
        let set = messages.iter().find_map(|(_, message)| match message {
            Message::EnrolAdmit { parts, .. } => Some(parts.iter().map(|(index, _)| index.0).collect()),
            _ => None,
        });
        set.unwrap_or_default()
    }

    /// The sets of the first tries, where parts are said to be in vain so often after each.
    fn sets(said: usize) -> Vec<Vec<u8>> {
        let mut joining = joining(5);
        (1..=5).for_each(|number| gives_part(&mut joining, number));
        let next = |_| {
            let set = next_set(&mut joining);
            (0..said).for_each(|_| joining.in_vain());
            set
        };
        (0..40).map(next).collect()
    }

    #[test]
    fn which_parts_are_tried_next_does_not_follow_from_how_often_somebody_refuses_them() {
        let once = sets(1);
        assert_eq!(once, sets(7));
        assert!((1..=5).all(|liar| once.iter().any(|set| set.len() == 3 && !set.contains(&liar))), "{once:?}");
        assert!(sets(0).windows(2).all(|pair| pair[0] == pair[1]), "none is refused, none is another");
    }

    #[test]
    fn one_that_names_many_of_its_own_does_not_crowd_the_others_parts_out() {
        let mut joining = joining(5);
        let honest: Vec<Contact> = (1..=5).map(|number| contact(number, "here")).collect();
        let own: Vec<Contact> = (100..121).map(|number| contact(number, "nowhere")).collect();
        for number in 1..=4 {
            assert!(joining.named(&key(number), pins(), honest.clone()));
        }
        assert!(joining.named(&key(5), pins(), own));
        (1..=5).chain(100..121).for_each(|number| gives_part(&mut joining, number));
        let mut good = 0;
        for _ in 0..40 {
            good += u32::from(next_set(&mut joining).iter().all(|number| *number <= 4));
            joining.in_vain();
        }
        assert!(good > 4, "{good} of 40 sets had none of the liar's parts");
    }

    #[test]
    fn where_those_that_name_the_committee_are_behind_it_a_liar_that_they_name_is_not_in_every_set() {
        let mut joining = joining(3);
        // Two name the committee of before, of which 3 is left, and lies; it names nobody else.
        for number in 1..=3 {
            assert!(joining.named(&key(number), pins(), [1, 2, 3].map(|number| contact(number, "here")).to_vec()));
        }
        joining.heard.clear();
        assert!(joining.named(&key(2), pins(), [3, 6, 7, 8, 9].map(|number| contact(number, "here")).to_vec()));
        [3, 6, 7, 8, 9].into_iter().for_each(|number| gives_part(&mut joining, number));
        let mut good = 0;
        for _ in 0..40 {
            good += u32::from(!next_set(&mut joining).contains(&3));
            joining.in_vain();
        }
        assert!(good > 2, "{good} of 40");
    }

    #[test]
    fn a_part_that_comes_and_goes_makes_one_try_before_its_time_and_no_more() {
        let mut joining = joining(5);
        let _sent = joining.messages(Time(0));
        gives_part(&mut joining, 1);
        gives_part(&mut joining, 2);
        let comes =
            |joining: &mut Joining, key_epoch| joining.part(key(3), key_epoch, T, ShareIndex(3), BlsSignature([3; 48]));
        let came = (0..5).filter(|_| !comes(&mut joining, 2) && comes(&mut joining, 1)).count();
        assert_eq!(came, 1);
        let _sent = joining.messages(Time(500));
        assert!(!comes(&mut joining, 2) && !comes(&mut joining, 1), "that was the one before its time");
        let _sent = joining.messages(Time(500 + JOIN_RETRY_MS));
        assert!(!comes(&mut joining, 2) && comes(&mut joining, 1));
    }

    #[test]
    fn whoever_names_others_again_and_again_is_heard_once_for_each_try() {
        let mut joining = joining(3);
        let list = |number| vec![contact(number, "here")];
        assert!(joining.named(&key(1), pins(), list(101)));
        assert!(!joining.named(&key(1), pins(), list(102)));
        assert!(joining.named(&key(2), pins(), list(102)));
        let _sent = joining.messages(Time(JOIN_RETRY_MS));
        assert!(joining.named(&key(1), pins(), list(103)));
        assert!(!joining.asks(&key(101)) && joining.asks(&key(103)));
    }

    #[test]
    fn a_wrong_address_that_one_names_keeps_no_host_from_its_turn() {
        let mut joining = joining(3);
        assert!(joining.named(&key(1), pins(), vec![contact(9, "nowhere")]));
        assert!(joining.named(&key(2), pins(), vec![contact(9, "here")]));
        let place = |joining: &mut Joining| {
            let sent = joining.messages(Time(0));
            sent.into_iter().find(|(to, _)| to.transport == key(9)).map(|(to, _)| to.address.0)
        };
        let places = [place(&mut joining), place(&mut joining), place(&mut joining)];
        assert_eq!(places, ["nowhere", "here", "nowhere"].map(|place| Some(place.to_owned())));
    }

    #[test]
    fn an_address_that_one_names_often_counts_once() {
        let mut joining = joining(3);
        let wrong = ["nowhere", "elsewhere", "there"].map(|place| contact(9, place));
        assert!(joining.named(&key(1), pins(), wrong.to_vec()));
        assert!(joining.named(&key(2), pins(), vec![contact(9, "here")]));
        let place = |turn| joining.asked_in(turn).into_iter().find(|to| to.transport == key(9)).map(|to| to.address.0);
        assert_eq!([place(0), place(1), place(2)], ["nowhere", "here", "nowhere"].map(|place| Some(place.to_owned())));
    }

    #[test]
    fn where_nobody_answers_to_its_parts_it_asks_anew_who_is_there() {
        let mut joining = joining(5);
        (1..=3).for_each(|number| gives_part(&mut joining, number));
        let greets = |messages: Vec<(Contact, Message)>| {
            messages.iter().any(|(_, message)| matches!(message, Message::EnrolHello(_)))
        };
        assert!(!greets(joining.messages(Time(0))));
        assert!(greets(joining.messages(Time(JOIN_RETRY_MS))));
    }

    #[test]
    fn only_a_single_contact_that_has_said_nothing_shortens_the_wait() {
        let waits = |joining: &Joining| joining.gives_up_at() == Some(Time(60_000));
        let mut one = joining(1);
        one.unreachable(Time(0), &key(2));
        assert!(waits(&one), "somebody else");
        one.named(&key(1), pins(), vec![contact(2, "here")]);
        one.unreachable(Time(0), &key(1));
        assert!(waits(&one), "it has said who else there is");
        let mut three = joining(3);
        three.unreachable(Time(0), &key(1));
        assert!(waits(&three), "there are others");
        let mut silent = joining(1);
        silent.unreachable(Time(0), &key(1));
        assert!(!waits(&silent));
        silent.named(&key(1), pins(), vec![contact(2, "here")]);
        assert!(waits(&silent), "it only started late");
    }
}
