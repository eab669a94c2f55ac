//! The part of the replicated state that speaks of credentials: the newest head of each, which request made which record,
//! and which puts came too late.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::groups::Group;
use super::snapshot::{Row, RowsProven, Skip};
use crate::credential::head::{HeadVerified, SignedHead};
use crate::credential::receipt::Value;
use crate::error::Check;
use crate::limits::{CREDENTIALS_MAX, PUT_EPOCHS, REQUEST_EPOCHS, REQUESTS_KEPT_MAX};
use crate::tree;
use crate::types::{Commitment, CredentialId, Digest, Generation, GroupId, Purpose, Round, ShareIndex};

/// A recorded credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The newest head.
    pub head: HeadVerified,
    /// Digest of the head under which its shares were dealt: the newest one changes nothing of the value.
    pub dealt: Digest,
    /// Its group.
    pub group: GroupId,
    /// The group's generation.
    pub generation: Generation,
    /// Digest of the commitments.
    pub commitments: Digest,
    /// Indexes whose holders had flushed their share when it was recorded, and have not begun anew since.
    pub flushed: Vec<ShareIndex>,
    /// Index of the record of the newest head.
    pub record: u64,
}

impl Credential {
    /// Whether there is a value: its owner has not removed it.
    pub fn is_there(&self) -> bool {
        !self.head.head().removed
    }

    /// Whether the shares of this head are those that are read.
    pub fn is_dealt(&self, head: &Digest) -> bool {
        self.is_there() && self.dealt == *head
    }
}

/// A credential as a row of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CredentialRow {
    head: SignedHead,
    dealt: Digest,
    group: GroupId,
    generation: Generation,
    commitments: Digest,
    flushed: Vec<ShareIndex>,
    record: u64,
}

impl CredentialRow {
    fn of(credential: &Credential) -> Self {
        let Credential { head, dealt, group, generation, commitments, flushed, record } = credential.clone();
        Self { head: head.signed().clone(), dealt, group, generation, commitments, flushed, record }
    }

    fn credential(&self, proven: &RowsProven) -> Option<Credential> {
        let Self { head, dealt, group, generation, commitments, flushed, record } = self.clone();
        let head = HeadVerified::recorded(&head, proven)?;
        Some(Credential { head, dealt, group, generation, commitments, flushed, record })
    }
}

/// All credentials.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    recorded: BTreeMap<CredentialId, Arc<Credential>>,
    first_commitments: BTreeMap<Commitment, CredentialId>,
    /// The record of each head of the last hour. By the whole head: a request id alone is no secret, and another owner
    /// could take it.
    made: BTreeMap<Digest, u64>,
    /// The same by the index of the record, with the round of the newest header when it was recorded.
    made_order: BTreeMap<u64, (Round, Digest)>,
}

impl Credentials {
    /// Records a new value.
    ///
    /// # Errors
    /// The check that rules it out.
    pub(super) fn put(
        &mut self,
        head: HeadVerified,
        of_group: &Group,
        value: &Value,
        round: Round,
        record: u64,
    ) -> Result<CredentialId, Check> {
        let id = head.head().id();
        self.check_value(&head)?;
        let flushed: Vec<ShareIndex> = value.flushed.iter().map(|flushed| flushed.index).collect();
        let known = flushed.iter().all(|index| of_group.holder_of(*index).is_some());
        if of_group.generation != value.generation || of_group.terms != head.head().terms {
            return Err(Check::Group);
        }
        // As it was dealt; what a generation makes of it is for its own records to say.
        let is_dealt = value.generation != Generation(1) || value.commitments == head.head().deal;
        if !known
            || !is_dealt
            || !flushed.is_sorted_by(|a, b| a < b)
            || flushed.len() < usize::from(of_group.terms.quorum())
        {
            return Err(Check::Receipts);
        }
        if let Some(last) = self.recorded.get(&id) {
            self.first_commitments.remove(&last.head.head().c0);
        }
        self.first_commitments.insert(head.head().c0, id);
        self.remember(&head, round, record);
        let Value { group, generation, commitments, .. } = *value;
        let dealt = *head.digest();
        let credential = Credential { head, dealt, group, generation, commitments, flushed, record };
        self.recorded.insert(id, Arc::new(credential));
        Ok(id)
    }

    /// Records a head that changes nothing of the value.
    ///
    /// # Errors
    /// The check that rules it out.
    pub(super) fn change(&mut self, head: HeadVerified, round: Round, record: u64) -> Result<CredentialId, Check> {
        let id = head.head().id();
        self.check_change(&head)?;
        self.remember(&head, round, record);
        let credential = Arc::make_mut(self.recorded.get_mut(&id).ok_or(Check::Unknown)?);
        credential.head = head;
        credential.record = record;
        Ok(id)
    }

    /// Whether a head may bring the next value of its credential.
    ///
    /// # Errors
    /// [`Check::HeadOrder`], [`Check::CommitmentReused`] or [`Check::Capacity`].
    pub fn check_value(&self, head: &HeadVerified) -> Result<(), Check> {
        let recorded = self.recorded.get(&head.head().id());
        head.check_value(recorded.map(|credential| &credential.head))?;
        if self.first_commitments.contains_key(&head.head().c0) {
            return Err(Check::CommitmentReused);
        }
        if recorded.is_none() && self.recorded.len() >= CREDENTIALS_MAX {
            return Err(Check::Capacity);
        }
        Ok(())
    }

    /// Whether a head may be the next of its credential, with the value as it is.
    ///
    /// # Errors
    /// [`Check::Unknown`], [`Check::HeadOrder`] or [`Check::HeadForm`].
    pub fn check_change(&self, head: &HeadVerified) -> Result<(), Check> {
        let recorded = self.recorded.get(&head.head().id()).ok_or(Check::Unknown)?;
        head.check_change(&recorded.head)
    }

    /// A host has no shares any more: its index in a group.
    pub(super) fn lost(&mut self, index_in: impl Fn(&GroupId) -> Option<ShareIndex>) {
        for credential in self.recorded.values_mut() {
            let index = index_in(&credential.group).filter(|index| credential.flushed.contains(index));
            if let Some(index) = index {
                Arc::make_mut(credential).flushed.retain(|flushed| *flushed != index);
            }
        }
    }

    fn remember(&mut self, head: &HeadVerified, round: Round, record: u64) {
        self.made.insert(*head.digest(), record);
        self.made_order.insert(record, (round, *head.digest()));
        while let Some(oldest) = self.made_order.first_entry() {
            let is_old = oldest.get().0.0.saturating_add(REQUEST_EPOCHS) < round.0;
            if !is_old && self.made.len() <= REQUESTS_KEPT_MAX {
                break;
            }
            let (_, head) = oldest.remove();
            self.made.remove(&head);
        }
    }

    pub(super) fn row_count(&self) -> usize {
        self.recorded.len() + self.made_order.len()
    }

    /// The rows that speak of credentials, without as many of each kind as are to be skipped.
    pub(super) fn rows<'a>(&'a self, skip: &mut Skip) -> impl Iterator<Item = Row> + use<'a> {
        let credentials = self.recorded.values().skip(skip.of(self.recorded.len()));
        let credentials = credentials.map(|credential| Row::Credential(Box::new(CredentialRow::of(credential))));
        let made = self.made_order.iter().skip(skip.of(self.made_order.len()));
        let made = made.map(|(record, (round, head))| Row::Made { record: *record, round: *round, head: *head });
        credentials.chain(made)
    }

    /// Takes a row of a snapshot.
    pub(super) fn take_row(&mut self, row: &Row, proven: &RowsProven) -> Option<()> {
        match row {
            Row::Credential(row) => {
                let credential = row.credential(proven)?;
                let head = credential.head.head();
                self.first_commitments.insert(head.c0, head.id());
                self.recorded.insert(head.id(), Arc::new(credential));
            }
            Row::Made { record, round, head } => {
                self.made.insert(*head, *record);
                self.made_order.insert(*record, (*round, *head));
            }
            _ => return None,
        }
        Some(())
    }

    /// The record of the head with this digest, where it is one of the last hour. A head names its request: the same asked
    /// twice is recorded once.
    pub fn made_of(&self, head: &Digest) -> Option<u64> {
        self.made.get(head).copied()
    }

    /// A credential, also one that was removed.
    pub fn get(&self, id: &CredentialId) -> Option<&Credential> {
        self.recorded.get(id).map(Arc::as_ref)
    }

    /// All credentials, also those that were removed.
    pub fn iter(&self) -> impl Iterator<Item = (&CredentialId, &Credential)> {
        self.recorded.iter().map(|(id, credential)| (id, credential.as_ref()))
    }

    /// For each group the root over its heads.
    pub(super) fn head_roots(&self) -> BTreeMap<GroupId, Digest> {
        let mut heads: BTreeMap<GroupId, Vec<Digest>> = BTreeMap::new();
        for (id, credential) in &self.recorded {
            let removed = [u8::from(credential.head.head().removed)];
            let leaf = Purpose::HeadLeaf.digest(&[&id.0, &credential.head.digest().0, &removed]);
            heads.entry(credential.group).or_default().push(leaf);
        }
        heads.into_iter().map(|(group, leaves)| (group, tree::root(&leaves))).collect()
    }
}

/// Whether a put whose oldest receipt is of this round can be recorded no more once a header of that other round is
/// closed: its holders erase what was not recorded by then.
pub fn has_expired(receipt: Round, header: Round) -> bool {
    header.0 > receipt.0.saturating_add(PUT_EPOCHS)
}

#[cfg(test)]
pub(in crate::cms) mod tests {
    use super::*;
    use crate::credential::head::{Dealer, Head, NAMESPACE, SignedHead};
    use crate::credential::receipt::Flushed;
    use crate::suite::Fake;
    use crate::types::{Ed25519Signature, HostId, MeshId, RequestId, SshKey, Terms};
    use crate::wire;

    pub(in crate::cms) fn group() -> Group {
        let holders = [1, 2, 3].map(|number| HostId([number; 32])).to_vec();
        Group {
            id: GroupId([1; 32]),
            number: 1,
            terms: Terms::new(2, 3, 0).unwrap(),
            generation: Generation(1),
            holders,
        }
    }

    pub(in crate::cms) fn head(
        number: u64,
        last: Option<&HeadVerified>,
        change: impl FnOnce(&mut Head),
    ) -> HeadVerified {
        let mut head = Head {
            mesh: MeshId([7; 32]),
            client: SshKey([1; 32]),
            name: "a".to_owned(),
            number,
            version: number,
            request: RequestId([u8::try_from(number).unwrap(); 16]),
            terms: group().terms,
            c0: Commitment([u8::try_from(number).unwrap(); 48]),
            deal: Digest::ZERO,
            payload: Digest([3; 32]),
            pieces: 1,
            allow: Vec::new(),
            recipients: Vec::new(),
            dealer: Dealer::Client,
            removed: false,
            previous: last.map(|last| *last.digest()),
            successors: Vec::new(),
        };
        change(&mut head);
        let bytes = wire::encode(&head);
        let signature = Fake::sshsig_sign(&head.client, NAMESPACE, &bytes);
        HeadVerified::check(&Fake, &MeshId([7; 32]), &SignedHead { bytes, signature }).unwrap()
    }

    pub(in crate::cms) fn value() -> Value {
        let flushed = |index| Flushed { index: ShareIndex(index), round: Round(1), signature: Ed25519Signature::ZERO };
        let (group, generation) = (group().id, Generation(1));
        Value { group, generation, commitments: Digest::ZERO, flushed: [1, 2, 3].map(flushed).to_vec() }
    }

    pub(in crate::cms) fn removed(head: &mut Head) {
        (head.version, head.c0, head.removed) = (1, Commitment([1; 48]), true);
    }

    #[test]
    fn a_put_counts_each_holder_once() {
        let mut all = Credentials::default();
        let first = head(1, None, |_| {});
        let mut twice = value();
        twice.flushed[1] = twice.flushed[0].clone();
        assert_eq!(all.put(first.clone(), &group(), &twice, Round(1), 1), Err(Check::Receipts));
        let mut stranger = value();
        stranger.flushed[2].index = ShareIndex(4);
        assert_eq!(all.put(first.clone(), &group(), &stranger, Round(1), 1), Err(Check::Receipts));
        assert!(all.put(first, &group(), &value(), Round(1), 1).is_ok());
    }

    #[test]
    fn a_request_is_known_by_its_very_head_for_an_hour() {
        let mut all = Credentials::default();
        let first = head(1, None, |_| {});
        all.put(first.clone(), &group(), &value(), Round(1), 1).unwrap();
        let second = head(2, Some(&first), |_| {});
        all.put(second.clone(), &group(), &value(), Round(2), 2).unwrap();
        assert_eq!((all.made_of(first.digest()), all.made_of(second.digest())), (Some(1), Some(2)));
        let other = head(1, None, |head| head.pieces = 2);
        assert_eq!(all.made_of(other.digest()), None, "the same request id over another head");
        let third = head(3, Some(&second), |_| {});
        let later = Round(2 + REQUEST_EPOCHS);
        all.put(third, &group(), &value(), later, 3).unwrap();
        assert_eq!((all.made_of(first.digest()), all.made_of(second.digest())), (None, Some(2)));
    }

    #[test]
    fn a_removed_credential_is_not_there_and_its_scalar_may_be_dealt_to_nobody_else_until_it_is_replaced() {
        let mut all = Credentials::default();
        let first = head(1, None, |_| {});
        all.put(first.clone(), &group(), &value(), Round(1), 1).unwrap();
        let gone = head(2, Some(&first), removed);
        let id = all.change(gone.clone(), Round(1), 2).unwrap();
        assert!(!all.get(&id).unwrap().is_there());
        assert!(!all.get(&id).unwrap().is_dealt(first.digest()));
        let thief = head(1, None, |head| head.name = "b".to_owned());
        assert_eq!(all.check_value(&thief), Err(Check::CommitmentReused));
        assert_eq!(all.change(gone, Round(1), 3), Err(Check::HeadOrder));
    }

    #[test]
    fn a_change_of_what_was_never_put_is_unknown() {
        let mut all = Credentials::default();
        let first = head(1, None, |_| {});
        assert_eq!(all.change(first, Round(1), 1), Err(Check::Unknown));
    }
}
