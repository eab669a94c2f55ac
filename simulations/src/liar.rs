//! A host that lies in one thing: in its deals of the mesh key, or in the state that it serves. All else that it does is
//! honest, so that nothing but the lie is tried.

use std::collections::BTreeMap;

use spec::cms::command::Command;
use spec::cms::election::LogEntry;
use spec::credential::dealing::{KeyDeal, index_in};
use spec::founding::Attempt;
use spec::limits::ENTRY_MAX;
use spec::suite::{Fake, Generator, Seed, Suite as _};
use spec::ticket::Contact;
use spec::types::{
    BlsPublic, BlsSignature, Digest, Ed25519Signature, HostId, MeshId, RequestId, SecretBytes, ShareIndex, TransportKey,
};
use spec::wire::{self, Address, Message};

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Deals to nobody.
    Silent,
    /// Deals what no receiver can open.
    BadSeal,
    /// Sub-shares that do not lie on the polynomial.
    WrongShare,
    /// A polynomial of another degree.
    WrongDegree,
    /// Another constant term than its share: that of an earlier dealing, say.
    StaleShare,
    /// One deal, and then another.
    TwoDeals,
    /// Deals honestly, and never says that it holds what is dealt to it.
    Mute,
    /// Deals honestly, and says that it holds the first dealer's deal, and no other.
    HoldsOne,
    /// Deals honestly, and serves a state in which one row is another.
    WrongRow,
    /// Deals honestly, and leaves out of the records that it serves what they say of credentials.
    NoHeads,
    /// Deals honestly, and never says that it keeps a share.
    NoReceipts,
    /// Deals honestly, and keeps its vote for the founding to itself.
    NoVote,
    /// Is honest, and never takes a seat that it is given.
    NoSeat,
    /// Is honest to members; to a joiner it says that it is in, names a committee of its own, and gives a part that does not
    /// hold under another's number.
    KeepsOut,
    /// In the founding: one deal to one of the others, and another to the other, and both hold for whom they are.
    Apart,
    /// In the founding: proves its chip to the host that gathers alone, and not to the other.
    Aside,
}

/// The liar.
pub struct Liar {
    /// Its machine.
    pub machine: usize,
    lie: Lie,
    founds: bool,
    /// What it says instead, in each dealing the same to all.
    instead: BTreeMap<Vec<u8>, KeyDeal>,
    /// Whom it dealt to first, in each attempt of the founding.
    first: BTreeMap<RequestId, TransportKey>,
    /// Whom it asked to found with.
    gathers: Option<TransportKey>,
    generator: Generator,
}

impl Liar {
    /// A machine that lies so once the mesh is founded.
    pub fn new(machine: usize, lie: Lie) -> Self {
        let generator = Generator::new(&Seed([0x11; 32].into()));
        Self { machine, lie, founds: false, instead: BTreeMap::new(), first: BTreeMap::new(), gathers: None, generator }
    }

    /// A machine that lies so in the founding too.
    pub fn founder(machine: usize, lie: Lie) -> Self {
        Self { founds: true, ..Self::new(machine, lie) }
    }

    /// What it sends in place of an honest message to another host, under its own transport key.
    pub fn says(
        &mut self,
        mesh: &MeshId,
        transport: &SecretBytes,
        (to, hosts): (TransportKey, &BTreeMap<TransportKey, HostId>),
        message: &Message,
    ) -> Vec<Message> {
        if let Message::FoundingDeal { attempt, deal, .. } = message
            && self.lie == Lie::Apart
        {
            let lie = self.apart(*attempt, deal, to, hosts);
            return vec![signed_founding(mesh, transport, *attempt, lie)];
        }
        if self.lie == Lie::KeepsOut {
            return to_joiner(message);
        }
        if let Message::EnrolHello(_) = message {
            self.gathers = Some(to);
        }
        let (dealing, deal) = match message {
            Message::FoundingAnswer { .. } if self.lie == Lie::Aside && self.gathers != Some(to) => return Vec::new(),
            Message::KeyDealt { ceremony, deal, .. } => (ceremony.0.to_vec(), deal),
            Message::FoundingDeal { attempt, deal, .. } if self.founds => (attempt.0.to_vec(), deal),
            Message::FoundingVote { .. } if self.founds && self.lie == Lie::NoVote => return Vec::new(),
            Message::Ballot(_) if self.lie == Lie::NoSeat => return Vec::new(),
            Message::KeyHeld { .. } if self.lie == Lie::Mute => return Vec::new(),
            Message::ShareStored { .. } if self.lie == Lie::NoReceipts => return Vec::new(),
            Message::KeyHeld { dealer, .. } if self.lie == Lie::HoldsOne && dealer.0 != 1 => return Vec::new(),
            Message::StatePage { record, number, rows } if self.lie == Lie::WrongRow => {
                let mut rows = rows.clone();
                rows.iter_mut().filter_map(|row| row.last_mut()).for_each(|byte| *byte ^= 1);
                return vec![Message::StatePage { record: *record, number: *number, rows }];
            }
            Message::RecordsPage { entries, newest } if self.lie == Lie::NoHeads => {
                let mut entries = entries.clone();
                let is_head =
                    |entry: &&mut LogEntry| matches!(wire::decode(&entry.command, ENTRY_MAX), Ok(Command::Head { .. }));
                entries.iter_mut().filter(is_head).for_each(|entry| entry.command.clear());
                return vec![Message::RecordsPage { entries, newest: *newest }];
            }
            _ => return vec![message.clone()],
        };
        let mut lie = deal.clone();
        match self.lie {
            Lie::Silent => return Vec::new(),
            Lie::NoVote
            | Lie::Mute
            | Lie::HoldsOne
            | Lie::WrongRow
            | Lie::NoHeads
            | Lie::NoReceipts
            | Lie::NoSeat
            | Lie::KeepsOut
            | Lie::Apart
            | Lie::Aside => return vec![message.clone()],
            Lie::BadSeal => lie.sealed.iter_mut().for_each(|sealed| sealed.fill(7)),
            Lie::WrongShare | Lie::WrongDegree | Lie::StaleShare | Lie::TwoDeals => {
                let known = self.instead.get(&dealing).cloned();
                lie = known.unwrap_or_else(|| self.another(deal));
                self.instead.insert(dealing, lie.clone());
                lie.sealed.clone_from(&deal.sealed);
            }
        }
        let said = match message {
            Message::KeyDealt { ceremony, .. } => signed(mesh, transport, *ceremony, lie),
            Message::FoundingDeal { attempt, .. } => signed_founding(mesh, transport, *attempt, lie),
            other => other.clone(),
        };
        if self.lie == Lie::TwoDeals { vec![message.clone(), said] } else { vec![said] }
    }

    /// What one of the other two gets: the first what was dealt, the second a deal that holds for that one alone.
    fn apart(
        &mut self,
        attempt: RequestId,
        deal: &KeyDeal,
        to: TransportKey,
        hosts: &BTreeMap<TransportKey, HostId>,
    ) -> KeyDeal {
        let mut lie = deal.clone();
        let first = *self.first.entry(attempt).or_insert(to);
        if first != to {
            let named = [first, to].map(|key| hosts.get(&key).copied());
            let mut founders: Vec<HostId> = named.into_iter().flatten().chain([deal.dealer]).collect();
            founders.sort_unstable();
            let index = hosts.get(&to).and_then(|host| index_in(&founders, host));
            if let Some((commitments, proof)) = index.and_then(|index| Fake::deal_apart(&deal.commitments, index)) {
                (lie.commitments, lie.proof) = (commitments, proof);
            }
        }
        lie
    }

    /// A deal whose form is right, but for one thing.
    fn another(&mut self, honest: &KeyDeal) -> KeyDeal {
        let mut lie = honest.clone();
        let t = u8::try_from(honest.commitments.len()).unwrap_or(2);
        let Some(fresh) = Fake.key_deal(t, t, None, &mut self.generator) else { return lie };
        let other = |at: usize| fresh.commitments.get(at).copied().unwrap_or(BlsPublic::ZERO);
        match self.lie {
            Lie::WrongDegree => lie.commitments.push(other(1)),
            Lie::StaleShare => {
                lie.commitments.clone_from(&fresh.commitments);
                lie.proof = Fake.bls_prove(&fresh.secret).unwrap_or(honest.proof);
            }
            _ => lie.commitments.iter_mut().skip(1).for_each(|commitment| *commitment = other(1)),
        }
        lie
    }
}

fn to_joiner(message: &Message) -> Vec<Message> {
    match message {
        Message::EnrolCommittee { pins, .. } => {
            let fake = |number: u8| Contact { transport: TransportKey([number; 32]), address: Address::default() };
            let committee = (1..=3).map(fake).collect();
            vec![Message::EnrolCommittee { pins: pins.clone(), committee }, Message::EnrolAdmitted]
        }
        Message::EnrolPart { key_epoch, t, index, .. } => {
            let index = ShareIndex(index.0 % 3 + 1);
            vec![Message::EnrolPart { key_epoch: *key_epoch, t: *t, index, part: BlsSignature::ZERO }]
        }
        other => vec![other.clone()],
    }
}

fn signed_founding(mesh: &MeshId, transport: &SecretBytes, attempt: RequestId, deal: KeyDeal) -> Message {
    let bytes = Attempt::deal_bytes(mesh, &attempt, &deal.digest(mesh));
    let signature = Fake.ed25519_sign(transport, &bytes).unwrap_or(Ed25519Signature::ZERO);
    Message::FoundingDeal { attempt, deal, signature }
}

fn signed(mesh: &MeshId, transport: &SecretBytes, ceremony: Digest, deal: KeyDeal) -> Message {
    let bytes = KeyDeal::signed_bytes(mesh, &ceremony, &deal.digest(mesh));
    let signature = Fake.ed25519_sign(transport, &bytes).unwrap_or(Ed25519Signature::ZERO);
    Message::KeyDealt { ceremony, deal, signature }
}
