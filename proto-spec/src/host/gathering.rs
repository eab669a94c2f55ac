//! What a host knows of a mesh that is forming, and as the gathering host: who has come, and with whom it would found.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Actions, Host, Lane, Table, Write};
use crate::attest::enroll::{Candidate, JoinerKeys};
use crate::cms::committee::{FOUNDERS, FOUNDERS_T, seats_are_spread};
use crate::error::Check;
use crate::founding::{Attempt, Founder};
use crate::genesis::{GenesisVerified, SignedGenesis};
use crate::limits::{FOUNDING_MS, GATHERED_MAX};
use crate::membership::Role;
use crate::ticket::{Contact, Pins, SignedTicket, Ticket, TicketVerified};
use crate::types::{Now, Time, TransportKey};
use crate::wire::{self, EnrolHello, Message};

/// What a forming host keeps on disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FormingRow {
    pub(super) genesis: SignedGenesis,
    pub(super) ticket: SignedTicket,
    /// The gathering host; none where this is it.
    pub(super) contact: Option<Contact>,
    /// Transport keys of the three in whose founding this host voted.
    pub(super) voted: Option<Vec<TransportKey>>,
}

/// The row goes.
pub(super) fn no_longer_forming() -> Write {
    Write { table: Table::Forming, key: b"forming".to_vec(), value: None }
}

/// A founder that came to the gathering host.
pub(super) struct Gathered {
    pub(super) founder: Founder,
    domain: String,
    heard: Time,
}

/// A mesh that is forming, as this host knows it.
pub(super) struct Forming {
    pub(super) genesis: GenesisVerified,
    pub(super) ticket: SignedTicket,
    pub(super) contact: Option<Contact>,
    pub(super) keys: Option<JoinerKeys>,
    pub(super) gathered: BTreeMap<TransportKey, Gathered>,
    /// Whose lie or silence ended an attempt.
    failed: BTreeSet<TransportKey>,
    pub(super) attempt: Option<Attempt>,
    /// The three in whose founding this host voted last: it may have succeeded.
    pub(super) voted: Option<Vec<TransportKey>>,
    /// It asked for that founding.
    has_asked: bool,
    /// Hosts that have come, as far as this host knows; below three also where more are of too few domains.
    pub(super) known: u8,
    /// What is sent until the attempt ends: messages are lost, and each is taken once.
    pub(super) outbox: Vec<(Lane, TransportKey, Message)>,
    pub(super) resend_at: Time,
}

impl Forming {
    pub(super) fn new(genesis: GenesisVerified, ticket: SignedTicket, contact: Option<Contact>) -> Self {
        Self {
            genesis,
            ticket,
            contact,
            keys: None,
            gathered: BTreeMap::new(),
            failed: BTreeSet::new(),
            attempt: None,
            voted: None,
            has_asked: false,
            known: 1,
            outbox: Vec::new(),
            resend_at: Time(0),
        }
    }

    /// Told that it is in: whether this host, since it voted in a founding that may have succeeded, asks to be shown that
    /// first. Once: it comes before the same word, where there is somebody who has it.
    pub(super) fn asks_for_founding(&mut self) -> bool {
        self.voted.is_some() && !std::mem::replace(&mut self.has_asked, true)
    }

    /// Whether this host, which waits for the call, may come with this ticket instead: where it voted, with one of the same
    /// mesh alone, since that may have come to be.
    pub(super) fn may_take(&self, ticket: &SignedTicket) -> bool {
        let same = |ticket: Ticket| ticket.pins.mesh == *self.genesis.mesh();
        self.contact.is_some() && (self.voted.is_none() || ticket.ticket().is_some_and(same))
    }

    /// The two with whom this host founds, once enough have come. Hosts of other domains come first, and no tolerated
    /// domains may hold as many shares as sign: then another host is waited for. Through whom an attempt failed comes last.
    pub(super) fn choose(&self) -> Option<Vec<&Gathered>> {
        self.choose_among(|key| !self.failed.contains(key)).or_else(|| self.choose_among(|_| true))
    }

    fn choose_among(&self, may_found: impl Fn(&TransportKey) -> bool) -> Option<Vec<&Gathered>> {
        let mut domains: Vec<String> = self.ticket.ticket().map(|ticket| ticket.domain).into_iter().collect();
        let mut left: Vec<&Gathered> =
            self.gathered.iter().filter(|(key, _)| may_found(key)).map(|(_, one)| one).collect();
        let mut chosen = Vec::new();
        while chosen.len() + 1 < FOUNDERS && !left.is_empty() {
            let other_domain = left.iter().position(|one| !domains.contains(&one.domain)).unwrap_or(0);
            let one = left.remove(other_domain);
            domains.push(one.domain.clone());
            chosen.push(one);
        }
        let tolerate = self.genesis.genesis().tolerate;
        let spread = seats_are_spread(FOUNDERS_T, tolerate, domains.iter().map(String::as_str));
        (chosen.len() + 1 == FOUNDERS && spread).then_some(chosen)
    }

    /// The attempt is over without a founding: it failed through these.
    pub(super) fn give_up(&mut self, through: &[TransportKey]) {
        self.attempt = None;
        self.outbox.clear();
        self.gathered.retain(|key, _| !through.contains(key));
        if self.failed.len() >= GATHERED_MAX {
            self.failed.clear();
        }
        self.failed.extend(through);
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Time {
        self.resend_at
    }

    /// What tickets written now pin: there is no key yet.
    pub(super) fn pins(&self) -> Pins {
        Pins { mesh: *self.genesis.mesh(), key: None }
    }

    pub(super) fn row(&self) -> Write {
        let row = FormingRow {
            genesis: self.genesis.signed().clone(),
            ticket: self.ticket.clone(),
            contact: self.contact.clone(),
            voted: self.voted.clone(),
        };
        Write { table: Table::Forming, key: b"forming".to_vec(), value: Some(wire::encode(&row)) }
    }
}

impl Host {
    /// As the gathering host: somebody would found with us.
    pub(super) fn gather(&mut self, now: Now, from: TransportKey, hello: &EnrolHello, actions: &mut Actions) {
        match self.gathered(now, from, hello) {
            Ok((genesis, known)) => {
                self.send_joiner(Lane::Records, from, Message::EnrolForming { genesis, known }, actions);
            }
            Err(check) => self.refuse_joiner(from, hello.request, check, actions),
        }
    }

    fn gathered(&mut self, now: Now, from: TransportKey, hello: &EnrolHello) -> Result<(SignedGenesis, u8), Check> {
        let suite = self.ground.suite.clone();
        let forming = self.forming.as_mut().ok_or(Check::NotReady)?;
        if forming.contact.is_some() {
            return Err(Check::Forming);
        }
        if hello.keys.transport != from {
            return Err(Check::Transport);
        }
        let ticket = TicketVerified::check(suite.as_ref(), &forming.genesis, &hello.ticket, now.wall_ms)?;
        let candidate = Candidate::check(suite.as_ref(), &forming.genesis, &ticket, &hello.keys, now.wall_ms)?;
        if candidate.record().role != Role::Host {
            return Err(Check::Forming); // whoever only reads joins when there is a mesh
        }
        let heard = now.monotonic;
        let (candidate_ticket, candidate_eks) = (&hello.ticket, &hello.keys.eks);
        forming.gathered.retain(|_, one| heard.0.saturating_sub(one.heard.0) < FOUNDING_MS);
        // One machine and one ticket come once, whatever keys they show.
        let same = |other: &Gathered| {
            let hello = &other.founder.hello;
            hello.ticket.bytes == candidate_ticket.bytes || hello.keys.eks == *candidate_eks
        };
        forming.gathered.retain(|key, other| *key == from || !same(other));
        if forming.gathered.len() >= GATHERED_MAX && !forming.gathered.contains_key(&from) {
            return Err(Check::Capacity);
        }
        let founder = Founder { hello: hello.clone() };
        let domain = candidate.record().domain.clone();
        forming.gathered.insert(from, Gathered { founder, domain, heard });
        // Three of too few domains do not found: they are as good as two.
        let enough = forming.choose().is_some();
        let known = if enough { forming.gathered.len() + 1 } else { forming.gathered.len().min(FOUNDERS - 2) + 1 };
        forming.known = u8::try_from(known).unwrap_or(u8::MAX);
        Ok((forming.genesis.signed().clone(), forming.known))
    }
}
