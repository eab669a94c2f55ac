//! What a host knows of a mesh that is forming, and as the gathering host: who has come, and with whom it would found.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Actions, Host, Lane, Table, Write};
use crate::attest::enroll::{Candidate, JoinerKeys, member_record};
use crate::attest::tpm::EkPublic;
use crate::cms::committee::{FOUNDERS, FOUNDERS_T, seats_are_spread};
use crate::error::{Check, Refused, Subject};
use crate::founding::{Attempt, Founder, check_apart};
use crate::genesis::{GenesisVerified, SignedGenesis};
use crate::limits::{CALLED_MAX, FOUNDING_MS, GATHERED_MAX};
use crate::membership::{MemberRecord, Role};
use crate::ticket::{Contact, Pins, SignedTicket, Ticket, TicketVerified};
use crate::types::{Now, TicketSerial, Time, TransportKey};
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
    record: MemberRecord,
    heard: Time,
}

impl Gathered {
    /// Whoever waits says hello again and again.
    const fn is_here(&self, now: Time) -> bool {
        now.0.saturating_sub(self.heard.0) < FOUNDING_MS
    }
}

/// Two with whom the gathering host could found.
type Pair<'a> = [&'a Gathered; FOUNDERS - 1];

/// What they came with.
fn tickets(pair: &Pair<'_>) -> [TicketSerial; FOUNDERS - 1] {
    let mut tickets = pair.map(|one| one.record.ticket);
    tickets.sort_unstable();
    tickets
}

/// Where the three would be.
fn domains<'a>(own: &'a MemberRecord, [one, other]: &Pair<'a>) -> [&'a str; FOUNDERS] {
    [own, &one.record, &other.record].map(|record| record.domain.as_str())
}

/// A mesh that is forming, as this host knows it.
pub(super) struct Forming {
    pub(super) genesis: GenesisVerified,
    pub(super) ticket: SignedTicket,
    pub(super) contact: Option<Contact>,
    pub(super) keys: Option<JoinerKeys>,
    pub(super) gathered: BTreeMap<TransportKey, Gathered>,
    /// Of all calls, numbered, the last that went to the holders of these two tickets: keys are made anew for nothing.
    called: BTreeMap<[TicketSerial; FOUNDERS - 1], u64>,
    calls: u64,
    pub(super) attempt: Option<Attempt>,
    /// The three in whose founding this host voted last: it may have succeeded.
    pub(super) voted: Option<Vec<TransportKey>>,
    /// It asked for that founding.
    has_asked: bool,
    /// Hosts that have come, as far as this host knows; below three also where no three of them can found.
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
            called: BTreeMap::new(),
            calls: 0,
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

    /// The two with whom this host founds, once enough have come: no two show what is one machine's, and no tolerated domains
    /// may hold as many shares as sign, or another host is waited for. Those that were not called for longest come first: who is
    /// to blame for an attempt cannot be seen from here. Then come hosts of other domains.
    pub(super) fn choose(&self, now: Time) -> Option<Pair<'_>> {
        let own = self.own_record()?;
        let others = || self.gathered.values().filter(|one| one.is_here(now));
        let pairs = others().enumerate().flat_map(|(at, one)| others().skip(at + 1).map(move |other| [one, other]));
        let tolerate = self.genesis.genesis().tolerate;
        let may_found = |pair: &Pair<'_>| {
            check_apart(&pair[0].record, &pair[1].record).is_ok()
                && seats_are_spread(FOUNDERS_T, tolerate, domains(&own, pair).into_iter())
        };
        let called = |pair: &Pair<'_>| self.called.get(&tickets(pair)).copied();
        let spread = |pair: &Pair<'_>| BTreeSet::from(domains(&own, pair)).len();
        pairs.filter(may_found).min_by_key(|pair| (called(pair), Reverse(spread(pair))))
    }

    /// What the others would record of this host, once its keys are measured.
    fn own_record(&self) -> Option<MemberRecord> {
        let keys = self.keys.as_ref()?;
        let eks: Option<Vec<EkPublic>> = keys.eks.iter().map(|offer| EkPublic::parse(&offer.public).ok()).collect();
        Some(member_record(&self.ticket.ticket()?, keys, &eks?))
    }

    /// What keeps one that came from founding with another.
    fn clash(&self, from: &TransportKey) -> Option<Check> {
        let one = self.gathered.get(from)?;
        let mut others = self.gathered.iter().filter(|(key, _)| *key != from);
        others.find_map(|(_, other)| check_apart(&one.record, &other.record).err())
    }

    /// The two that are called now.
    pub(super) fn call(&mut self, now: Time) -> Option<[Founder; FOUNDERS - 1]> {
        let pair = self.choose(now)?;
        let (tickets, founders) = (tickets(&pair), pair.map(|one| one.founder.clone()));
        if self.called.len() >= CALLED_MAX {
            self.called.clear();
        }
        self.calls = self.calls.saturating_add(1);
        self.called.insert(tickets, self.calls);
        Some(founders)
    }

    /// The attempt is over without a founding.
    pub(super) fn give_up(&mut self) {
        self.attempt = None;
        self.outbox.clear();
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
        match self.gathered(now, from, hello, actions) {
            Ok((genesis, known)) => {
                // Either may be the one that lies, or that got a wrong ticket: it is for a person to see.
                if let Some(check) = self.forming.as_ref().and_then(|forming| forming.clash(&from)) {
                    self.refusal(Refused::new(check, Subject::Request), actions);
                }
                self.send_joiner(Lane::Records, from, Message::EnrolForming { genesis, known }, actions);
            }
            Err(check) => self.refuse_joiner(from, hello.request, check, actions),
        }
    }

    fn gathered(
        &mut self,
        now: Now,
        from: TransportKey,
        hello: &EnrolHello,
        actions: &mut Actions,
    ) -> Result<(SignedGenesis, u8), Check> {
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
        forming.gathered.retain(|_, one| one.is_here(heard));
        // Whoever is called sees the others' tickets, so one is theirs who came with it first, while they wait. What else one
        // shows may be another's too: nothing is proven yet.
        let record = candidate.record().clone();
        check_apart(&forming.own_record().ok_or(Check::NotReady)?, &record)?;
        if forming.gathered.iter().any(|(key, other)| *key != from && other.record.ticket == record.ticket) {
            // A machine that lost its keys is to come again until its old ones are forgotten; a person sees what it is.
            self.refusal(Refused::new(Check::TicketUsed, Subject::Request), actions);
            return Err(Check::NotReady);
        }
        if forming.gathered.len() >= GATHERED_MAX && !forming.gathered.contains_key(&from) {
            return Err(Check::Capacity);
        }
        let founder = Founder { hello: hello.clone() };
        forming.gathered.insert(from, Gathered { founder, record, heard });
        // Three that cannot found are as good as two.
        let enough = forming.choose(heard).is_some();
        let known = if enough { forming.gathered.len() + 1 } else { forming.gathered.len().min(FOUNDERS - 2) + 1 };
        forming.known = u8::try_from(known).unwrap_or(u8::MAX);
        Ok((forming.genesis.signed().clone(), forming.known))
    }
}
