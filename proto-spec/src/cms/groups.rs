//! The part of the replicated state that speaks of shard groups: each is drawn by a beacon, and makes room once it is empty.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::records::{Effect, Records};
use crate::beacon::{EpochVerified, SignedBeacon};
use crate::credential::placement::{self, Candidate, spread_holds};
use crate::error::Check;
use crate::limits::GROUPS_MAX;
use crate::suite::Suite;
use crate::tree;
use crate::types::{Digest, Generation, GroupId, HostId, Purpose, ShareIndex, Terms};
use crate::wire;

/// A shard group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its identity.
    pub id: GroupId,
    /// Its place in the order in which groups were drawn; the first has 1.
    pub number: u64,
    /// k, n and the spread.
    pub terms: Terms,
    /// Its generation.
    pub generation: Generation,
    /// Its holders, in the order of the share indexes.
    pub holders: Vec<HostId>,
}

impl Group {
    /// The index of a host's share.
    pub fn index_of(&self, host: &HostId) -> Option<ShareIndex> {
        let at = self.holders.iter().position(|holder| holder == host)?;
        u8::try_from(at + 1).ok().map(ShareIndex)
    }

    /// The holder of a share.
    pub fn holder_of(&self, index: ShareIndex) -> Option<&HostId> {
        self.holders.get(usize::from(index.0).checked_sub(1)?)
    }
}

impl Records {
    pub(super) fn group_root(&self) -> Digest {
        let heads = self.credentials.head_roots();
        let leaf = |group: &Group| {
            let root = heads.get(&group.id).copied().unwrap_or_else(|| tree::root(&[]));
            Purpose::GroupLeaf.digest(&[&wire::encode(group), &root.0])
        };
        tree::root(&self.groups.values().map(leaf).collect::<Vec<_>>())
    }

    pub(super) fn activate(
        &mut self,
        suite: &dyn Suite,
        group: Group,
        beacon: &SignedBeacon,
        absent: &[HostId],
    ) -> Result<Effect, Check> {
        let key = self.mesh_key().ok_or(Check::Record)?;
        let epoch = EpochVerified::check(suite, &key, beacon).ok_or(Check::Record)?;
        // An old beacon would let the proposer choose among many.
        if self.headers.last().is_some_and(|header| beacon.round < header.round) {
            return Err(Check::EvidenceStale);
        }
        if self.draw(group.terms, &epoch, absent)? != group {
            return Err(Check::Group);
        }
        if self.groups.len() >= GROUPS_MAX {
            let empty = self.empty_group().ok_or(Check::Capacity)?;
            self.groups.remove(&empty);
        }
        let id = group.id;
        self.groups.insert(id, group);
        Ok(Effect::GroupActive(id))
    }

    /// Draws a group: a function of the beacon, the records and the hosts that do not stand. Whoever applies the record
    /// draws again.
    ///
    /// # Errors
    /// [`Check::Spread`] where the hosts that stand cannot meet the terms, or another check.
    pub fn draw(&self, terms: Terms, epoch: &EpochVerified, absent: &[HostId]) -> Result<Group, Check> {
        let mesh = self.mesh().ok_or(Check::Record)?;
        // One that is empty makes room.
        if self.groups.len() >= GROUPS_MAX && self.empty_group().is_none() {
            return Err(Check::Capacity);
        }
        let hosts = self.members.staying_hosts();
        let candidates: Vec<Candidate<'_>> = hosts
            .filter(|record| !absent.contains(&record.host))
            .map(|record| Candidate {
                host: record.host,
                domain: &record.domain,
                region: &record.region,
                zone: &record.zone,
            })
            .collect();
        let number = self.groups.values().map(|group| group.number).max().unwrap_or(0).saturating_add(1);
        let beacon = epoch.beacon();
        let id = Purpose::Group.digest(&[&mesh.0, &beacon.0, &wire::encode(&terms), &number.to_be_bytes()]);
        let holders = placement::draw(terms, &candidates, beacon, &id.0)?;
        let domain = |host: &HostId| self.members.get(host).map_or("", |member| member.record().domain.as_str());
        if !terms.are_sound() || !spread_holds(terms, holders.iter().map(domain)) {
            return Err(Check::Spread);
        }
        Ok(Group { id: GroupId(id.0), number, terms, generation: Generation(1), holders })
    }

    /// Whether a group's holders are where its terms want them still: one that left may have come back elsewhere.
    pub fn is_still_spread(&self, group: &Group) -> bool {
        let domain = |host: &HostId| self.members.get(host).map_or("", |member| member.record().domain.as_str());
        spread_holds(group.terms, group.holders.iter().map(domain))
    }

    /// Groups in which a value lies.
    pub(super) fn groups_of_values(&self) -> BTreeSet<GroupId> {
        let there = self.credentials.iter().filter(|(_, credential)| credential.is_there());
        there.map(|(_, credential)| credential.group).collect()
    }

    /// The oldest group in which no value lies.
    fn empty_group(&self) -> Option<GroupId> {
        let of_values = self.groups_of_values();
        let empty = self.groups.values().filter(|group| !of_values.contains(&group.id));
        empty.min_by_key(|group| group.number).map(|group| group.id)
    }
}
