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
    /// Holders that could not be reached, and since when.
    unreached: BTreeMap<HostId, Time>,
    /// Holders that were unreached for so long that they are waited for no more.
    silent: BTreeSet<HostId>,
    /// Holders that say that a newer head is there than the map says.
    ahead: BTreeSet<HostId>,
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
            unreached: BTreeMap::new(),
            silent: BTreeSet::new(),
            ahead: BTreeSet::new(),
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
        opened.map.holders.iter().filter(open).cloned().collect()
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
                Some(number) if number > asked_for => {
                    self.ahead.insert(from);
                    if self.is_superseded() { self.begin_again(view.now.monotonic) } else { Next::Wait }
                }
                Some(number) if number < asked_for => {
                    self.refused(view.now.monotonic, from, Refused::new(Check::NotReady, Subject::Host(from)))
                }
                _ => self.refused(view.now.monotonic, from, Refused::new(Check::Share, Subject::Host(from))),
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
            None => self.refused(view.now.monotonic, from, Refused::new(Check::Share, Subject::Host(from))),
        }
    }

    /// A holder refused.
    pub fn refused(&mut self, now: Time, from: HostId, refused: Refused) -> Next {
        if let Stage::AwaitingPayload { asked, .. } = &self.stage {
            if *asked != from {
                return Next::Wait;
            }
            if refused.check == Check::HeadOrder {
                self.ahead.insert(from);
            }
            return if self.is_superseded() { self.begin_again(now) } else { self.ask_payload() };
        }
        if is_passing(refused.check) {
            self.ask_again_soon(now);
        }
        self.unreached.remove(&from);
        self.refused.insert(from, refused);
        if self.is_out_of_date() { self.begin_again(now) } else { self.settle() }
    }

    /// Whether so many holders know of no such credential that it may be removed since the map was made.
    fn is_out_of_date(&self) -> bool {
        let Some(opened) = &self.opened else { return false };
        let unknown = self.refused.values().filter(|refused| refused.check == Check::Unknown).count();
        let others = opened.map.holders.len().saturating_sub(unknown);
        unknown > 0 && others < usize::from(opened.head.head().terms.k)
    }

    /// Whether fewer than k holders are left that may go by the head that the map says. One holder's word is not enough: it
    /// would keep every reader from what the others would give.
    fn is_superseded(&self) -> bool {
        let Some(opened) = &self.opened else { return false };
        let left = opened.map.holders.iter().filter(|one| !self.ahead.contains(&one.host) && !self.is_lost(&one.host));
        !self.ahead.is_empty() && left.count() < usize::from(opened.head.head().terms.k)
    }

    /// Time passed: where a holder spoke of a newer head, and the others did not answer by then, another map is asked for.
    pub fn look_again(&mut self, now: Time) -> Option<Next> {
        let waits = matches!(self.stage, Stage::AwaitingShares) && !self.ahead.is_empty();
        waits.then(|| self.begin_again(now))
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
        match self.unreached.get(&from) {
            None => {
                self.unreached.insert(from, now);
                self.ask_again_soon(now);
                Next::Wait
            }
            // All that went into dead connections is reported, and of those there may be several: the holder is asked
            // again all that time.
            Some(since) if now < since.plus(UNREACHED_MS) => Next::Wait,
            Some(_) => {
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
        let left = opened.map.holders.iter().filter(|holder| !self.is_lost(&holder.host)).count();
        if left >= usize::from(opened.head.head().terms.k) { Next::Wait } else { Next::Fail(self.too_few()) }
    }

    fn is_lost(&self, host: &HostId) -> bool {
        let refused = self.refused.get(host).is_some_and(|refused| !is_passing(refused.check));
        !self.good.contains(host) && (refused || self.silent.contains(host))
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
        let Stage::AwaitingPayload { scalar, asked } = &self.stage else { return Next::Wait };
        // A slow holder's answer is as good as that of the one that was asked after it: the digest says so.
        if !self.payload_tried.contains(&from) {
            return Next::Wait;
        }
        let head = opened.head.head();
        if seal::payload_digest(pieces) != head.payload {
            return if *asked == from { self.ask_payload() } else { Next::Wait };
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
/// A holder that cannot be reached for so long is not waited for any more: it is more than the end of every connection that
/// an outage killed takes, and half of the time of a request.
const UNREACHED_MS: u64 = 5_000;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::head::{Dealer, Head, NAMESPACE, SignedHead};
    use crate::suite::Fake;
    use crate::types::{Generation, MeshId, RequestId, SshKey, Terms};
    use crate::wire::{self, Address};

    const MESH: MeshId = MeshId([7; 32]);
    const NOW: Time = Time(1_000);

    fn holder(number: u8) -> HostId {
        HostId([number; 32])
    }

    /// A reading of a credential that is 3-of-5, as it is after its map was opened.
    fn opened() -> Reading {
        let head = Head {
            mesh: MESH,
            client: SshKey([1; 32]),
            name: "a".to_owned(),
            number: 1,
            version: 1,
            request: RequestId([1; 16]),
            terms: Terms::new(3, 5, 1).unwrap(),
            c0: Commitment([2; 48]),
            deal: Digest([4; 32]),
            payload: Digest([3; 32]),
            pieces: 1,
            allow: Vec::new(),
            recipients: Vec::new(),
            dealer: Dealer::Client,
            removed: false,
            previous: None,
            successors: Vec::new(),
        };
        let bytes = wire::encode(&head);
        let signature = Fake::sshsig_sign(&head.client, NAMESPACE, &bytes);
        let signed = SignedHead { bytes, signature };
        let verified = HeadVerified::check(&Fake, &MESH, &signed).unwrap();
        let of = |number: u8| MapHolder {
            host: holder(number),
            name: format!("h{number}"),
            transport: TransportKey([number; 32]),
            address: Address::default(),
        };
        let map = ShardMap {
            mesh: MESH,
            head: signed,
            generation: Generation(1),
            commitments: Digest([4; 32]),
            holders: (1..=5).map(of).collect(),
        };
        let mut reading = Reading::new(head.id(), holder(9), Round(1), Time(10_000));
        reading.opened = Some(OpenedMap { map, head: verified });
        reading.stage = Stage::AwaitingShares;
        reading
    }

    /// Three holders gave their shares; the payload is asked of the first.
    fn combined() -> Reading {
        let mut reading = opened();
        reading.good = vec![holder(1), holder(2), holder(3)];
        reading.stage = Stage::AwaitingPayload { scalar: SecretBytes::copy_of(&[1; 32]), asked: holder(9) };
        assert_eq!(asked(reading.ask_payload()), Some(holder(1)));
        reading
    }

    fn asked(next: Next) -> Option<HostId> {
        match next {
            Next::AskPayload { holder, .. } => Some(holder.host),
            _ => None,
        }
    }

    fn refuse(reading: &mut Reading, number: u8, check: Check) -> Next {
        reading.refused(NOW, holder(number), Refused::new(check, Subject::Request))
    }

    #[test]
    fn one_holder_that_speaks_of_a_newer_head_does_not_keep_a_reader_from_what_the_others_give() {
        let mut reading = combined();
        assert!(matches!(refuse(&mut reading, 4, Check::HeadOrder), Next::Wait), "it was not asked");
        assert_eq!(asked(refuse(&mut reading, 1, Check::HeadOrder)), Some(holder(2)));
        assert!(matches!(refuse(&mut reading, 1, Check::HeadOrder), Next::Wait), "nor any more");
        assert_eq!(asked(refuse(&mut reading, 2, Check::HeadOrder)), Some(holder(3)));
        assert!(matches!(refuse(&mut reading, 3, Check::HeadOrder), Next::Again), "of five only two are left");
    }

    #[test]
    fn a_holder_has_one_answer_for_a_payload_be_it_a_bad_one() {
        let mut reading = combined();
        let bad = [vec![1; 20]];
        assert_eq!(asked(reading.payload(holder(1), &bad)), Some(holder(2)));
        for _ in 0..5 {
            assert!(matches!(reading.payload(holder(1), &bad), Next::Wait));
        }
        assert_eq!(asked(reading.payload(holder(2), &bad)), Some(holder(3)), "the others are asked still");
    }

    #[test]
    fn holders_behind_dead_connections_are_asked_until_half_of_the_time_is_over_and_then_the_reader_is_told() {
        let mut reading = opened();
        let at = |later: u64| NOW.plus(later);
        for (number, later) in [(1, 0), (2, 0), (3, 0), (1, 900), (2, 900), (3, 4_900)] {
            assert!(matches!(reading.unreachable(holder(number), at(later)), Next::Wait));
            assert_eq!(reading.take_retries().len(), 5);
        }
        assert!(matches!(refuse(&mut reading, 3, Check::NotReady), Next::Wait), "it is there after all");
        assert!(matches!(reading.unreachable(holder(1), at(5_000)), Next::Wait), "four may answer");
        assert!(matches!(reading.unreachable(holder(2), at(5_000)), Next::Wait), "three may");
        assert!(
            matches!(reading.unreachable(holder(3), at(5_000)), Next::Wait),
            "since it answered, its time runs anew"
        );
        let Next::Fail(failure) = reading.unreachable(holder(3), at(10_000)) else { panic!("two are too few") };
        let missing = (1..=5).map(holder).collect();
        assert_eq!(failure, Failure::TooFewHolders { got: 0, needed: 3, missing });
    }

    #[test]
    fn a_newer_head_of_which_a_holder_speaks_is_looked_for_once_the_others_had_their_time() {
        let mut reading = opened();
        assert!(reading.look_again(NOW).is_none());
        reading.ahead.insert(holder(4));
        assert!(!reading.is_superseded());
        reading.silent.extend([holder(1), holder(2)]);
        assert!(reading.is_superseded(), "of those that may go by this head two are left");
        assert!(matches!(reading.look_again(NOW), Some(Next::Again)));
        assert!(reading.ahead.is_empty() && matches!(reading.stage, Stage::AwaitingMap));
    }
}
