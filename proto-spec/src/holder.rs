//! A holder: accepts a share, keeps it under a key that is its own, releases it to a reader whose evidence it
//! appraised itself. It believes no coordinator: head and evidence are checked here again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::cms::credentials::{Credential, has_expired};
use crate::cms::records::Records;
use crate::credential::head::{HeadVerified, SignedHead};
use crate::credential::receipt::PutReceipt;
use crate::credential::seal::{self, SealContext, ShardPlace};
use crate::credential::split::commitments_digest;
use crate::error::Check;
use crate::limits::{DISK_FREE_MIN, MESSAGE_MAX, SHARES_HELD_MAX, UNRECORDED_BYTES_MAX, UNRECORDED_PER_SENDER_MAX};
use crate::membership::MemberRecord;
use crate::period::Periods;
use crate::suite::{Generator, Suite};
use crate::types::{
    Commitment, CredentialId, Digest, Ed25519Signature, Generation, GroupId, HostId, HpkePublic, MeshId, Purpose,
    Round, SecretBytes, ShareIndex,
};
use crate::view::View;

/// A share as it rests: its shard sealed, its head beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredShare {
    /// The head that it belongs to.
    pub head: SignedHead,
    /// The group.
    pub group: GroupId,
    /// Its generation.
    pub generation: Generation,
    /// Index of the share.
    pub index: ShareIndex,
    /// Commitments to the polynomial.
    pub commitments: Vec<Commitment>,
    /// The member that sent it.
    pub sender: HostId,
    /// Round of the newest header when it was taken.
    pub round: Round,
    /// Number of the unlock from which that period key follows.
    pub unlock: u64,
    /// The highest number of a head of its credential by which this holder said that it is bound; 0 where it never did.
    pub bound: u64,
    /// The shard, sealed under HKDF(period key, its place).
    #[serde(with = "serde_bytes")]
    pub shard: Vec<u8>,
}

/// A share in memory: what was checked once is not checked again.
struct Held {
    stored: StoredShare,
    head: HeadVerified,
    /// Bytes that it occupies, its payload included.
    bytes: usize,
    /// It did not open when it was to be wrapped anew: it stays as it is, and does not hold up the others.
    is_lost: bool,
}

/// Which share: several heads of one credential may lie beside each other until one is recorded.
pub type ShareKey = (CredentialId, Digest);

/// A share that is superfluous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// Which.
    pub key: ShareKey,
    /// Its group.
    pub group: GroupId,
    /// Pieces of its payload.
    pub pieces: u16,
}

/// What a dealer sends to a holder.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// The head.
    pub head: &'a SignedHead,
    /// The group.
    pub group: GroupId,
    /// Its generation.
    pub generation: Generation,
    /// Index of the share.
    pub index: ShareIndex,
    /// The share, sealed to this holder.
    pub sealed: &'a [u8],
    /// Commitments to the polynomial.
    pub commitments: &'a [Commitment],
    /// The encrypted payload.
    pub pieces: &'a [ByteBuf],
    /// The member that sent it.
    pub from: HostId,
}

/// What follows from an offer.
#[derive(Debug)]
pub struct Accepted {
    /// The receipt to send once everything is flushed.
    pub receipt: PutReceipt,
    /// The share to write; `None` where it is on disk already.
    pub write: Option<(ShareKey, StoredShare)>,
}

/// What a holder gives to a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The head.
    pub head: SignedHead,
    /// Index of the share.
    pub index: ShareIndex,
    /// Commitments to the polynomial.
    pub commitments: Vec<Commitment>,
    /// The share, sealed to the reader's session key.
    pub sealed: Vec<u8>,
}

/// The keys of this holder.
#[derive(Clone, Copy)]
pub struct HolderKeys<'a> {
    /// This host.
    pub host: &'a HostId,
    /// Seed of its transport key: signs receipts.
    pub transport: &'a SecretBytes,
    /// Open what dealers seal, and seal shards at rest.
    pub periods: &'a Periods,
}

/// The shares of one host.
#[derive(Default)]
pub struct State {
    held: BTreeMap<ShareKey, Held>,
    /// Those whose head is not recorded.
    unrecorded: BTreeSet<ShareKey>,
    /// Whether the disk has no room for more than is there.
    is_full: bool,
    /// Credentials of which records speak that no header has confirmed.
    changed: BTreeSet<CredentialId>,
    /// Shares that such records made recorded ones: they count no more against what may wait.
    freed: BTreeSet<ShareKey>,
}

impl State {
    /// So many bytes are free on the disk.
    pub fn free(&mut self, bytes: u64) {
        self.is_full = bytes < DISK_FREE_MIN;
    }

    /// Whether this host takes no new share.
    pub fn is_full(&self) -> bool {
        self.is_full || self.held.len() >= SHARES_HELD_MAX
    }

    /// Takes back a share from disk.
    ///
    /// # Errors
    /// The check that it fails: what was written by this host and does not read back is damage.
    pub fn restore(
        &mut self,
        suite: &dyn Suite,
        mesh: &MeshId,
        records: &Records,
        stored: StoredShare,
    ) -> Result<(), Check> {
        let head = HeadVerified::check(suite, mesh, &stored.head)?;
        let key = (head.head().id(), *head.digest());
        if !is_recorded(records, &key) {
            self.unrecorded.insert(key);
        }
        // What recorded heads had made superfluous before a crash is looked for once.
        self.changed.insert(key.0);
        self.held.insert(key, Held { bytes: occupied(&head), stored, head, is_lost: false });
        Ok(())
    }

    /// A head is recorded. What that makes superfluous stays until a header confirms it.
    pub fn head_recorded(&mut self, credential: &Credential) {
        let key = (credential.head.head().id(), credential.dealt);
        if self.unrecorded.remove(&key) {
            self.freed.insert(key);
        }
        if self.of_credential(&key.0).next().is_some() {
            self.changed.insert(key.0);
        }
    }

    /// A header of a round confirms the records up to an index: what they make superfluous is to go.
    pub fn confirmed(&mut self, records: &Records, up_to: u64, round: Round) -> Vec<Gone> {
        let mut gone = Vec::new();
        for id in std::mem::take(&mut self.changed) {
            match records.credential(&id) {
                Some(credential) if credential.record > up_to => drop(self.changed.insert(id)),
                Some(credential) => gone.extend(self.superseded(credential)),
                None => {}
            }
        }
        // Those of records behind it may turn out to be made up still.
        let is_open = |(id, _): &ShareKey| records.credential(id).is_some_and(|credential| credential.record > up_to);
        self.freed.retain(is_open);
        gone.extend(self.expired(round));
        gone
    }

    /// The records were not those that the mesh key signed: what they said of shares is forgotten.
    pub fn denied(&mut self) {
        self.unrecorded.append(&mut self.freed);
        self.changed.clear();
    }

    /// Other records took the place of those that were here: all that is held is looked at again.
    pub fn replaced(&mut self, records: &Records) {
        self.unrecorded.retain(|key| !is_recorded(records, key));
        self.changed = self.held.keys().map(|(id, _)| *id).collect();
    }

    /// Checks an offered share and makes it ready to rest.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn accept(&mut self, view: View<'_>, keys: HolderKeys<'_>, offer: Offer<'_>) -> Result<Accepted, Check> {
        // Else the receipt would be as old as the records.
        view.follows_header()?;
        let head = HeadVerified::check(view.suite, view.mesh, offer.head)?;
        self.check_offer(view, keys.host, &head, &offer)?;
        let key = (head.head().id(), *head.digest());
        let held = self.held.get(&key).map(|held| &held.stored);
        let round = held.map_or(view.records.round(), |stored| stored.round);
        let receipt = Self::receipt(view, keys, &head, &offer, round).ok_or(Check::NotReady)?;
        if let Some(stored) = held {
            // Asked again: the same share gets the same receipt, another one under the same head none.
            let same = stored.commitments == offer.commitments && stored.group == offer.group;
            return if same { Ok(Accepted { receipt, write: None }) } else { Err(Check::Share) };
        }
        self.check_capacity(&head, &offer.from)?;
        let share = Self::open_offer(view, keys, &head, &offer).ok_or(Check::Share)?;
        let k = head.head().terms.k;
        if !view.suite.share_fits(k, offer.commitments, offer.index, &share) {
            return Err(Check::Share);
        }
        let (unlock, period) = keys.periods.newest().ok_or(Check::Locked)?;
        let shard = seal::seal_at_rest(period, &place(&head, offer.generation, offer.index), &share);
        let stored = StoredShare {
            head: offer.head.clone(),
            group: offer.group,
            generation: offer.generation,
            index: offer.index,
            commitments: offer.commitments.to_vec(),
            sender: offer.from,
            round: receipt.round,
            unlock,
            bound: 0,
            shard: shard.ok_or(Check::NotReady)?,
        };
        if !is_recorded(view.records, &key) {
            self.unrecorded.insert(key);
        }
        self.held.insert(key, Held { stored: stored.clone(), bytes: occupied(&head), head, is_lost: false });
        Ok(Accepted { receipt, write: Some((key, stored)) })
    }

    fn check_offer(&self, view: View<'_>, host: &HostId, head: &HeadVerified, offer: &Offer<'_>) -> Result<(), Check> {
        let group = view.records.group(&offer.group).ok_or(Check::Group)?;
        let mine = group.index_of(host) == Some(offer.index);
        if !mine || group.generation != offer.generation || group.terms != head.head().terms {
            return Err(Check::Group);
        }
        if let Some(recorded) = view.records.credential(&head.head().id()) {
            // What is recorded already is acknowledged again; lower or rival heads never come back.
            let repeated = recorded.is_dealt(head.digest());
            if !repeated && head.head().number <= recorded.head.head().number {
                return Err(Check::HeadOrder);
            }
        }
        let pieces: Vec<Vec<u8>> = offer.pieces.iter().map(|piece| piece.to_vec()).collect();
        // Shares that somebody else made up are not the owner's, even where they lie on a polynomial through g^s.
        let is_dealt = commitments_digest(offer.commitments) == head.head().deal;
        if !is_dealt || offer.commitments.first() != Some(&head.head().c0) {
            return Err(Check::HeadForm);
        }
        let fits = pieces.len() == usize::from(head.head().pieces)
            && seal::pieces_are_sound(&pieces)
            && seal::payload_digest(&pieces) == head.head().payload;
        if fits { Ok(()) } else { Err(Check::Payload) }
    }

    fn check_capacity(&self, head: &HeadVerified, sender: &HostId) -> Result<(), Check> {
        let client = head.head().client;
        let unrecorded = || self.unrecorded.iter().filter_map(|key| self.held.get(key));
        let of_client: usize =
            unrecorded().filter(|held| held.head.head().client == client).map(|held| held.bytes).sum();
        let of_sender = unrecorded().filter(|held| held.stored.sender == *sender).count();
        let full = self.is_full()
            || of_client + occupied(head) > UNRECORDED_BYTES_MAX
            || of_sender >= UNRECORDED_PER_SENDER_MAX;
        if full { Err(Check::Capacity) } else { Ok(()) }
    }

    fn open_offer(view: View<'_>, keys: HolderKeys<'_>, head: &HeadVerified, offer: &Offer<'_>) -> Option<SecretBytes> {
        let sender = head.head().dealer.sender(&head.head().client);
        let context = SealContext {
            mesh: view.mesh,
            client: &head.head().client,
            id: &head.head().id(),
            version: head.head().version,
            generation: offer.generation,
            index: offer.index,
            sender: &sender,
            receiver: keys.host,
            head: head.digest(),
        };
        let info = context.info(Purpose::Deal);
        keys.periods.receiving().find_map(|key| view.suite.hpke_open(key, &info.0, offer.sealed))
    }

    fn receipt(
        view: View<'_>,
        keys: HolderKeys<'_>,
        head: &HeadVerified,
        offer: &Offer<'_>,
        round: Round,
    ) -> Option<PutReceipt> {
        let mut receipt = PutReceipt {
            holder: *keys.host,
            index: offer.index,
            head: *head.digest(),
            group: offer.group,
            generation: offer.generation,
            commitments: commitments_digest(offer.commitments),
            round,
            signature: Ed25519Signature::ZERO,
        };
        receipt.signature = view.suite.ed25519_sign(keys.transport, &receipt.signed_bytes(view.mesh))?;
        Some(receipt)
    }

    /// What a recorded head makes superfluous: older shares of its credential, rivals that lost, and all of them once
    /// it is removed.
    fn superseded(&mut self, recorded: &Credential) -> Vec<Gone> {
        let head = recorded.head.head();
        let id = head.id();
        self.unrecorded.remove(&(id, recorded.dealt));
        let gone: Vec<ShareKey> = self
            .of_credential(&id)
            .filter(|((_, digest), held)| !recorded.is_dealt(digest) && held.head.head().number <= head.number)
            .map(|(key, _)| *key)
            .collect();
        self.drop_all(gone)
    }

    /// Shares whose put can be recorded no more once a header of this round is closed.
    fn expired(&mut self, header: Round) -> Vec<Gone> {
        let is_late = |key: &&ShareKey| self.held.get(key).is_none_or(|held| has_expired(held.stored.round, header));
        let gone: Vec<ShareKey> = self.unrecorded.iter().filter(is_late).copied().collect();
        self.drop_all(gone)
    }

    fn drop_all(&mut self, gone: Vec<ShareKey>) -> Vec<Gone> {
        let drop = |key: ShareKey| {
            self.unrecorded.remove(&key);
            self.held.remove(&key).map(|held| Gone { key, group: held.stored.group, pieces: held.head.head().pieces })
        };
        gone.into_iter().filter_map(drop).collect()
    }

    fn of_credential(&self, id: &CredentialId) -> impl Iterator<Item = (&ShareKey, &Held)> {
        self.held.range((*id, Digest::ZERO)..=(*id, Digest([0xff; 32])))
    }

    /// Releases the recorded share of a credential to a reader whose evidence was appraised.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn release(
        &self,
        view: View<'_>,
        keys: HolderKeys<'_>,
        generator: &mut Generator,
        id: &CredentialId,
        reader: &MemberRecord,
        session: &HpkePublic,
    ) -> Result<Release, Check> {
        let (held, newest) = self.recorded(view, id)?;
        newest.head().check_reader(reader)?;
        let stored = &held.stored;
        let place = place(&held.head, stored.generation, stored.index);
        let period = keys.periods.key(stored.unlock).ok_or(Check::Locked)?;
        let share = seal::open_at_rest(period, &place, &stored.shard).ok_or(Check::Share)?;
        let context = SealContext {
            mesh: view.mesh,
            client: &held.head.head().client,
            id,
            version: held.head.head().version,
            generation: stored.generation,
            index: stored.index,
            sender: &keys.host.0,
            receiver: &reader.host,
            head: newest.digest(),
        };
        let info = context.info(Purpose::Release);
        let sealed = view.suite.hpke_seal(session, &info.0, share.expose(), generator).ok_or(Check::Quote)?;
        let head = newest.signed().clone();
        Ok(Release { head, index: stored.index, commitments: stored.commitments.clone(), sealed })
    }

    /// This holder is bound by the newest head of a credential from here on, whatever records it is shown later: gives the
    /// group of its share, and the share where it is to be written anew. `None` where it holds none.
    pub fn bind(&mut self, records: &Records, id: &CredentialId) -> Option<(GroupId, Option<(ShareKey, StoredShare)>)> {
        let credential = records.credential(id)?;
        let (key, number) = ((*id, credential.dealt), credential.head.head().number);
        let stored = &mut self.held.get_mut(&key)?.stored;
        let is_news = stored.bound < number;
        stored.bound = stored.bound.max(number);
        Some((stored.group, is_news.then(|| (key, stored.clone()))))
    }

    /// Wraps a few shards of one group under the newest unlock: what is to be written. `None` where all lie under it.
    pub fn rewrap(&mut self, periods: &Periods, most: usize) -> Option<(GroupId, Vec<(ShareKey, StoredShare)>)> {
        let (number, new) = periods.newest()?;
        let is_old = |held: &Held| held.stored.unlock < number && !held.is_lost;
        let group = self.held.values().find(|held| is_old(held))?.stored.group;
        let old = self.held.iter_mut().filter(|(_, held)| is_old(held) && held.stored.group == group);
        let rewrap = |(key, held): (&ShareKey, &mut Held)| {
            let place = place(&held.head, held.stored.generation, held.stored.index);
            let share =
                periods.key(held.stored.unlock).and_then(|old| seal::open_at_rest(old, &place, &held.stored.shard));
            match share.and_then(|share| seal::seal_at_rest(new, &place, &share)) {
                Some(shard) => (held.stored.shard, held.stored.unlock) = (shard, number),
                None => held.is_lost = true,
            }
            (*key, held.stored.clone())
        };
        Some((group, old.take(most).map(rewrap).collect()))
    }

    /// The highest number of an unlock under which a shard lies; 0 where there is none.
    pub fn newest_number(&self) -> u64 {
        self.held.values().map(|held| held.stored.unlock).max().unwrap_or(0)
    }

    /// Whether the payload of this head may go to this reader: under which key it lies, in how many pieces.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn payload(
        &self,
        view: View<'_>,
        id: &CredentialId,
        head: &Digest,
        reader: &MemberRecord,
    ) -> Result<(ShareKey, u16), Check> {
        let (held, newest) = self.recorded(view, id)?;
        if newest.digest() != head {
            return Err(Check::HeadOrder);
        }
        newest.head().check_reader(reader)?;
        Ok(((*id, *held.head.digest()), held.head.head().pieces))
    }

    /// The share that is read now, and the newest head.
    fn recorded<'a>(&'a self, view: View<'a>, id: &CredentialId) -> Result<(&'a Held, &'a HeadVerified), Check> {
        let credential = view.records.credential(id).filter(|credential| credential.is_there());
        let credential = credential.ok_or(Check::Unknown)?;
        let held = self.held.get(&(*id, credential.dealt)).ok_or(Check::Unknown)?;
        // A leader that lies may have shown the committee another end of the log, on which what binds this holder is not.
        let bound = self.of_credential(id).map(|(_, held)| held.stored.bound).max().unwrap_or(0);
        if credential.head.head().number < bound {
            return Err(Check::HeadOrder);
        }
        Ok((held, &credential.head))
    }

    /// Whether a share is held.
    pub fn holds(&self, key: &ShareKey) -> bool {
        self.held.contains_key(key)
    }

    /// Number of shares held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether no share is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

fn is_recorded(records: &Records, (id, digest): &ShareKey) -> bool {
    records.credential(id).is_some_and(|credential| credential.is_dealt(digest))
}

fn occupied(head: &HeadVerified) -> usize {
    let pieces = usize::from(head.head().pieces);
    (pieces * (crate::limits::PIECE_BYTES + crate::limits::PIECE_TAG_BYTES) + head.signed().bytes.len())
        .min(MESSAGE_MAX)
}

fn place(head: &HeadVerified, generation: Generation, index: ShareIndex) -> ShardPlace {
    ShardPlace { id: head.head().id(), version: head.head().version, generation, index, head: *head.digest() }
}
