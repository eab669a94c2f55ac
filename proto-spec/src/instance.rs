//! A reader: attest → map → shards → reconstruct. One request at a time is one [`Reading`]; it trusts no single
//! answer: the owner's key is configured, the combined secret is checked against the head, the payload by its digest.

use std::collections::{BTreeMap, BTreeSet};

use crate::cms::records::commitments_fit;
use crate::credential::head::HeadVerified;
use crate::credential::seal::{self, SealContext};
use crate::credential::shard_map::{MapHolder, ShardMap};
use crate::error::{Check, Failure, Refused, Subject};
use crate::holder::Release;
use crate::types::{
    Commitment, CredentialId, Digest, HostId, Purpose, Round, SecretBytes, ShareIndex, Time, TransportKey,
};
use crate::view::View;

/// A share that arrived, opened and not yet proven.
struct Piece {
    share: SecretBytes,
    commitments: Vec<Commitment>,
}

/// What a reading waits for.
pub enum Stage {
    /// The map, from the coordinator.
    AwaitingMap,
    /// The map's opening by the driver.
    AwaitingOpening,
    /// Shares from the holders.
    AwaitingShares,
    /// The payload from one holder.
    AwaitingPayload {
        /// The combined scalar, proven against the head.
        scalar: SecretBytes,
        /// Who was asked.
        asked: HostId,
    },
}

/// A holder that could not be reached once.
enum Doubt {
    /// It will be asked again.
    ToAsk,
    /// It was asked again, over a connection of its own: the next report is believed.
    AskedAgain,
}

/// A map that was opened and checked.
struct OpenedMap {
    map: ShardMap,
    head: HeadVerified,
}

/// One reading.
pub struct Reading {
    /// The credential.
    pub id: CredentialId,
    /// Rounds whose evidence, and so whose session keys, it has shown.
    pub rounds: BTreeSet<Round>,
    /// The reading host.
    pub host: HostId,
    /// When it is given up.
    pub deadline: Time,
    /// When holders that were not ready are asked again.
    pub retry_at: Option<Time>,
    /// What it waits for.
    pub stage: Stage,
    opened: Option<OpenedMap>,
    pieces: BTreeMap<ShareIndex, Piece>,
    good: Vec<HostId>,
    refused: BTreeMap<HostId, Refused>,
    doubted: BTreeMap<HostId, Doubt>,
    silent: BTreeSet<HostId>,
    payload_tried: BTreeSet<HostId>,
}

/// What a reading wants next.
pub enum Next {
    /// Wait for more.
    Wait,
    /// The map is out of date: another is asked for, under another request, so that no late answer is taken for its.
    Again,
    /// Ask this holder for the payload.
    AskPayload {
        /// The holder.
        holder: MapHolder,
        /// Digest of the head.
        head: Digest,
    },
    /// It failed.
    Fail(Failure),
    /// It is done: the credential.
    Done(SecretBytes),
}

impl Reading {
    /// Begins: the map was asked for.
    pub fn new(id: CredentialId, host: HostId, round: Round, deadline: Time) -> Self {
        Self {
            id,
            rounds: BTreeSet::from([round]),
            host,
            deadline,
            retry_at: None,
            stage: Stage::AwaitingMap,
            opened: None,
            pieces: BTreeMap::new(),
            good: Vec::new(),
            refused: BTreeMap::new(),
            doubted: BTreeMap::new(),
            silent: BTreeSet::new(),
            payload_tried: BTreeSet::new(),
        }
    }

    /// The map was opened: the holders to ask, all at once.
    ///
    /// # Errors
    /// [`Check::HeadForm`] or another check where the map is not that of the credential that was asked for.
    pub fn map_opened(&mut self, view: View<'_>, bytes: &[u8]) -> Result<Vec<MapHolder>, Check> {
        let map = ShardMap::from_bytes(bytes).map_err(|_| Check::HeadForm)?;
        let head = HeadVerified::check(view.suite, view.mesh, &map.head)?;
        // The head is signed by the owner whom this reader configured: id = H(owner's key ‖ name).
        if head.head().id() != self.id || map.holders.len() != usize::from(head.head().terms.n) {
            return Err(Check::HeadForm);
        }
        let holders = map.holders.clone();
        self.opened = Some(OpenedMap { map, head });
        self.stage = Stage::AwaitingShares;
        Ok(holders)
    }

    /// The holders that have not answered for good: they are asked again.
    pub fn take_retries(&mut self) -> Vec<MapHolder> {
        self.retry_at = None;
        self.refused.retain(|_, refused| !is_passing(refused.check));
        let Some(opened) = &self.opened else { return Vec::new() };
        let open = |holder: &&MapHolder| {
            let host = &holder.host;
            !self.good.contains(host) && !self.refused.contains_key(host) && !self.silent.contains(host)
        };
        let retries: Vec<MapHolder> = opened.map.holders.iter().filter(open).cloned().collect();
        for holder in &retries {
            if let Some(doubt) = self.doubted.get_mut(&holder.host) {
                *doubt = Doubt::AskedAgain;
            }
        }
        retries
    }

    /// Generation that the map names.
    pub fn generation(&self) -> Option<crate::types::Generation> {
        self.opened.as_ref().map(|opened| opened.map.generation)
    }

    /// The holder with this transport key.
    pub fn holder_by_transport(&self, key: &TransportKey) -> Option<HostId> {
        let opened = self.opened.as_ref()?;
        opened.map.holders.iter().find(|holder| holder.transport == *key).map(|holder| holder.host)
    }

    /// A holder's answer, sealed to one of the sessions that this reading has shown.
    pub fn share(&mut self, view: View<'_>, sessions: &[&SecretBytes], from: HostId, release: &Release) -> Next {
        let Release { head, index, commitments, sealed } = release;
        let Some(opened) = &self.opened else { return Next::Wait };
        if !matches!(self.stage, Stage::AwaitingShares) {
            return Next::Wait;
        }
        // The owner signed the bytes; how the signature is wrapped says nothing.
        if head.bytes != opened.map.head.bytes {
            let other =
                HeadVerified::check(view.suite, view.mesh, head).ok().filter(|other| other.head().id() == self.id);
            let asked_for = opened.head.head().number;
            return match other.map(|other| other.head().number) {
                Some(number) if number > asked_for => self.begin_again(view.now.monotonic),
                Some(number) if number < asked_for => {
                    self.refused(view, from, Refused::new(Check::NotReady, Subject::Host(from)))
                }
                _ => self.refused(view, from, Refused::new(Check::Share, Subject::Host(from))),
            };
        }
        let placed = usize::from(index.0).checked_sub(1).and_then(|at| opened.map.holders.get(at));
        let fits =
            placed.is_some_and(|holder| holder.host == from) && commitments_fit(&opened.map.commitments, commitments);
        let open = |session: &&SecretBytes| open_share(view, session, opened, self.host, &from, *index, sealed);
        match fits.then(|| sessions.iter().find_map(open)).flatten() {
            Some(share) => {
                self.pieces.insert(*index, Piece { share, commitments: commitments.clone() });
                self.refused.remove(&from);
                self.good.push(from);
                self.combine(view)
            }
            None => self.refused(view, from, Refused::new(Check::Share, Subject::Host(from))),
        }
    }

    /// A holder refused.
    pub fn refused(&mut self, view: View<'_>, from: HostId, refused: Refused) -> Next {
        if let Stage::AwaitingPayload { asked, .. } = &self.stage {
            return match refused.check {
                Check::HeadOrder => self.begin_again(view.now.monotonic),
                _ if *asked == from => self.ask_payload(),
                _ => Next::Wait,
            };
        }
        if is_passing(refused.check) {
            self.ask_again_soon(view.now.monotonic);
        }
        self.refused.insert(from, refused);
        if self.is_out_of_date() { self.begin_again(view.now.monotonic) } else { self.settle() }
    }

    /// Whether so many holders know of no such credential that it may be removed since the map was made.
    fn is_out_of_date(&self) -> bool {
        let Some(opened) = &self.opened else { return false };
        let unknown = self.refused.values().filter(|refused| refused.check == Check::Unknown).count();
        let others = opened.map.holders.len().saturating_sub(unknown);
        unknown > 0 && others < usize::from(opened.head.head().terms.k)
    }

    /// Another host leads: where the map is waited for, it is asked at once.
    pub fn leader_changed(&mut self, now: Time) {
        if matches!(self.stage, Stage::AwaitingMap) {
            self.retry_at = Some(now);
        }
    }

    fn ask_again_soon(&mut self, now: Time) {
        let soon = now.plus(RETRY_MS);
        self.retry_at = Some(self.retry_at.map_or(soon, |at| at.min(soon)));
    }

    /// A newer head is recorded than the map says: from the start, with another map.
    fn begin_again(&mut self, now: Time) -> Next {
        let (rounds, deadline) = (std::mem::take(&mut self.rounds), self.deadline);
        let round = rounds.first().copied().unwrap_or(Round(0));
        *self = Self { rounds, ..Self::new(self.id, self.host, round, deadline) };
        self.ask_again_soon(now);
        Next::Again
    }

    /// A holder cannot be reached.
    pub fn unreachable(&mut self, from: HostId, now: Time) -> Next {
        if let Stage::AwaitingPayload { asked, .. } = &self.stage {
            return if *asked == from { self.ask_payload() } else { Next::Wait };
        }
        // What is said of a connection says nothing of an answer that is here already.
        if self.good.contains(&from) {
            return Next::Wait;
        }
        match self.doubted.get(&from) {
            // The first time it may have been an older message, or a connection of before the holder's restart.
            None => {
                self.doubted.insert(from, Doubt::ToAsk);
                self.ask_again_soon(now);
                Next::Wait
            }
            // All that went into the same dead connection is reported: that is one report, not several.
            Some(Doubt::ToAsk) => Next::Wait,
            Some(Doubt::AskedAgain) => {
                self.silent.insert(from);
                self.settle()
            }
        }
    }

    /// Time is up.
    pub fn expired(&self) -> Failure {
        match self.stage {
            Stage::AwaitingMap => Failure::NoLeader,
            _ => self.too_few(),
        }
    }

    fn combine(&mut self, view: View<'_>) -> Next {
        let Some(opened) = &self.opened else { return Next::Wait };
        let head = opened.head.head();
        let (k, c0) = (head.terms.k, head.c0);
        if self.pieces.len() < usize::from(k) {
            return self.settle();
        }
        let shares: Vec<(ShareIndex, &SecretBytes)> =
            self.pieces.iter().map(|(index, piece)| (*index, &piece.share)).collect();
        if let Some(scalar) = view.suite.combine(k, &shares, &c0) {
            self.pieces.clear();
            self.retry_at = Some(view.now.monotonic.plus(SILENCE_MS));
            self.stage = Stage::AwaitingPayload { scalar, asked: self.host };
            return self.ask_payload();
        }
        // Somebody's share is wrong: only now is each checked by itself, and the wrong ones are dropped.
        let wrong: Vec<ShareIndex> = self
            .pieces
            .iter()
            .filter(|(index, piece)| !view.suite.share_fits(k, &piece.commitments, **index, &piece.share))
            .map(|(index, _)| *index)
            .collect();
        for index in wrong {
            self.pieces.remove(&index);
            if let Some(holder) = usize::from(index.0).checked_sub(1).and_then(|at| opened.map.holders.get(at)) {
                let refused = Refused::new(Check::Share, Subject::Host(holder.host));
                self.refused.insert(holder.host, refused);
                self.good.retain(|host| *host != holder.host);
            }
        }
        self.settle()
    }

    /// Whether enough holders can still answer.
    fn settle(&self) -> Next {
        let Some(opened) = &self.opened else { return Next::Wait };
        let is_lost = |host: &HostId| {
            let refused = self.refused.get(host).is_some_and(|refused| !is_passing(refused.check));
            !self.good.contains(host) && (refused || self.silent.contains(host))
        };
        let left = opened.map.holders.iter().filter(|holder| !is_lost(&holder.host)).count();
        if left >= usize::from(opened.head.head().terms.k) { Next::Wait } else { Next::Fail(self.too_few()) }
    }

    fn too_few(&self) -> Failure {
        let Some(opened) = &self.opened else { return Failure::NoLeader };
        let needed = opened.head.head().terms.k;
        let holders = opened.map.holders.len();
        // Where the refusals alone leave fewer than k, the reader was refused: that is the news, not who is down.
        let hard: Vec<&Refused> = self.refused.values().filter(|refused| is_about_reader(refused.check)).collect();
        if let Some(first) = hard.first()
            && holders.saturating_sub(hard.len()) < usize::from(needed)
        {
            return Failure::Refused((*first).clone());
        }
        let missing =
            opened.map.holders.iter().map(|holder| holder.host).filter(|host| !self.good.contains(host)).collect();
        Failure::TooFewHolders { got: u8::try_from(self.good.len()).unwrap_or(u8::MAX), needed, missing }
    }

    fn ask_payload(&mut self) -> Next {
        let Some(opened) = &self.opened else { return Next::Fail(Failure::NoLeader) };
        let holders = &opened.map.holders;
        // First those that answered, then the others.
        let mut order: Vec<&MapHolder> = holders.iter().filter(|holder| self.good.contains(&holder.host)).collect();
        order.extend(holders.iter().filter(|holder| !self.good.contains(&holder.host)));
        let Some(holder) = order.into_iter().find(|holder| !self.payload_tried.contains(&holder.host)).cloned() else {
            return Next::Fail(Failure::TooFewHolders {
                got: 0,
                needed: 1,
                missing: holders.iter().map(|holder| holder.host).collect(),
            });
        };
        self.payload_tried.insert(holder.host);
        if let Stage::AwaitingPayload { asked, .. } = &mut self.stage {
            *asked = holder.host;
        }
        Next::AskPayload { holder, head: *opened.head.digest() }
    }

    /// The holder that was asked for the payload is silent: the next one is asked.
    pub fn payload_again(&mut self) -> Next {
        match self.ask_payload() {
            // All were asked: one of them may just be slow.
            Next::Fail(_) => Next::Wait,
            next => next,
        }
    }

    /// A holder's payload.
    pub fn payload(&mut self, from: HostId, pieces: &[Vec<u8>]) -> Next {
        let Some(opened) = &self.opened else { return Next::Wait };
        let Stage::AwaitingPayload { scalar, .. } = &self.stage else { return Next::Wait };
        // A slow holder's answer is as good as that of the one that was asked after it: the digest says so.
        if !self.payload_tried.contains(&from) {
            return Next::Wait;
        }
        let head = opened.head.head();
        if seal::payload_digest(pieces) != head.payload {
            return self.ask_payload();
        }
        match seal::decrypt_payload(scalar, &self.id, head.version, pieces) {
            Ok(secret) => Next::Done(secret),
            // The digest fits what the owner signed: no other holder has anything else.
            Err(check) => Next::Fail(Failure::Refused(Refused::new(check, Subject::Credential(self.id)))),
        }
    }
}

/// A holder that was not ready is asked again after this time.
const RETRY_MS: u64 = 250;
/// Somebody who did not answer is asked again after this time: a message may be lost.
pub const SILENCE_MS: u64 = 1_000;

/// Refusals that pass by themselves: the holder is starting, or a step behind.
fn is_passing(check: Check) -> bool {
    check.is_passing() || matches!(check, Check::Unknown | Check::Membership)
}

/// Refusals that speak of the reader, not of the holder.
fn is_about_reader(check: Check) -> bool {
    matches!(check, Check::Policy | Check::Pcr(_) | Check::EvidenceSignature | Check::Quote | Check::Role)
}

fn open_share(
    view: View<'_>,
    session: &SecretBytes,
    opened: &OpenedMap,
    reader: HostId,
    from: &HostId,
    index: ShareIndex,
    sealed: &[u8],
) -> Option<SecretBytes> {
    let head = opened.head.head();
    let context = SealContext {
        mesh: view.mesh,
        client: &head.client,
        id: &head.id(),
        version: head.version,
        generation: opened.map.generation,
        index,
        sender: &from.0,
        receiver: &reader,
        head: opened.head.digest(),
    };
    view.suite.hpke_open(session, &context.info(Purpose::Release).0, sealed)
}
