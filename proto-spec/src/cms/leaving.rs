//! How a member goes: it says so, gives up what it has, and is remembered as long as a value names it.

use std::collections::BTreeSet;

use super::committee::FOUNDERS;
use super::credentials::{Credential, has_expired};
use super::members::LeavingWord;
use super::records::{Effect, Records};
use crate::error::Check;
use crate::membership::Role;
use crate::suite::Suite;
use crate::types::HostId;

impl Records {
    pub(super) fn begin_leaving(
        &mut self,
        suite: &dyn Suite,
        host: &HostId,
        word: &LeavingWord,
    ) -> Result<Effect, Check> {
        self.check_leaving_word(suite, host, word)?;
        self.members.begin_leaving(host);
        Ok(Effect::Leaving(*host))
    }

    /// Whether a host's word that it leaves can be recorded.
    ///
    /// # Errors
    /// [`Check::Expired`], [`Check::Membership`] where it is no member or said so before, [`Check::Transport`] where it is
    /// not its word, [`Check::Floor`].
    pub fn check_leaving_word(&self, suite: &dyn Suite, host: &HostId, word: &LeavingWord) -> Result<(), Check> {
        let mesh = self.mesh().ok_or(Check::Record)?;
        // Refused once, it must not send its host away whenever a leader likes.
        if has_expired(word.round, self.round()) {
            return Err(Check::Expired);
        }
        self.members.check_leaving_word(suite, mesh, host, word)?;
        self.check_leaving(host)
    }

    /// Whether a host may leave at all: no credential that it holds a share of may be left with fewer than k + 1 hosts that
    /// do and stay, and three hosts must stay.
    ///
    /// # Errors
    /// [`Check::Floor`].
    pub fn check_leaving(&self, host: &HostId) -> Result<(), Check> {
        let stays =
            |other: &HostId| other != host && self.members.get(other).is_some() && !self.members.is_leaving(other);
        let falls = |credential: &Credential| {
            let Some(group) = self.groups.get(&credential.group) else { return false };
            let mut holders = credential.flushed.iter().filter_map(|index| group.holder_of(*index));
            let left = credential.flushed.iter().filter_map(|index| group.holder_of(*index)).filter(|one| stays(one));
            credential.is_there()
                && holders.any(|holder| holder == host)
                && left.count() < usize::from(group.terms.k) + 1
        };
        let others = self.members.staying_hosts().filter(|record| record.host != *host).count();
        let is_host = self.members.get(host).is_some_and(|member| member.record().role == Role::Host);
        if is_host && (others < FOUNDERS || self.credentials.iter().any(|(_, credential)| falls(credential))) {
            Err(Check::Floor)
        } else {
            Ok(())
        }
    }

    pub(super) fn leave(&mut self, host: &HostId) -> Result<Effect, Check> {
        if !self.may_leave(host) {
            return Err(Check::Record);
        }
        if self.members.departed_is_full() {
            let forgotten = self.forgettable().ok_or(Check::Capacity)?;
            self.members.forget(&forgotten);
        }
        self.members.leave(host, self.applied + 1)?;
        Ok(Effect::Left(*host))
    }

    /// Whether a member that said that it leaves has nothing left to give up, and there is room to remember that it left.
    pub fn may_leave(&self, host: &HostId) -> bool {
        let Some(committee) = self.committee() else { return false };
        self.members.is_leaving(host)
            && committee.seat_of(host).is_none()
            && committee.key.index_of(host).is_none()
            && (!self.members.departed_is_full() || self.forgettable().is_some())
    }

    /// The first of those that left of whom no value's group speaks: who reads it is told of nobody else.
    fn forgettable(&self) -> Option<HostId> {
        let of_values = self.groups_of_values();
        let named: BTreeSet<&HostId> =
            of_values.iter().filter_map(|group| self.groups.get(group)).flat_map(|group| &group.holders).collect();
        self.members.departed_in_order().into_iter().find(|host| !named.contains(host))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cms::credentials::tests::{group, head, removed, value};
    use crate::limits::MEMBERS_MAX;
    use crate::membership::MemberRecord;
    use crate::types::{BlsPublic, BlsSignature, Round, TicketSerial, TransportKey};

    fn record(number: usize) -> MemberRecord {
        let mut host = [0; 32];
        host[30..].copy_from_slice(&u16::try_from(number).unwrap().to_be_bytes());
        MemberRecord {
            host: HostId(host),
            name: format!("host{number}"),
            role: Role::Host,
            domain: "north".to_owned(),
            region: String::new(),
            zone: String::new(),
            eks: Vec::new(),
            ak: Vec::new(),
            transport: TransportKey(host),
            vote: BlsPublic::ZERO,
            vote_proof: BlsSignature::ZERO,
            map_recipient: String::new(),
            good_pcrs: BTreeMap::new(),
            ticket: TicketSerial::ZERO,
        }
    }

    #[test]
    fn of_those_that_left_the_first_is_forgotten_in_whose_group_no_value_lies() {
        let mut records = Records::default();
        for number in 0..MEMBERS_MAX {
            let at = u64::try_from(MEMBERS_MAX - number).unwrap();
            records.members.depart(record(number), at);
        }
        assert!(records.members.departed_is_full());
        let (last, before) = (record(MEMBERS_MAX - 1).host, record(MEMBERS_MAX - 2).host);
        assert_eq!(records.forgettable(), Some(last), "it left first");
        let mut of_last = group();
        of_last.holders[0] = last;
        records.groups.insert(of_last.id, of_last.clone());
        assert_eq!(records.forgettable(), Some(last), "the group is empty");
        let first = head(1, None, |_| {});
        records.credentials.put(first.clone(), &of_last, &value(), Round(1), 1).unwrap();
        assert_eq!(records.forgettable(), Some(before), "a reader is told of who left first");
        records.credentials.change(head(2, Some(&first), removed), Round(1), 2).unwrap();
        assert_eq!(records.forgettable(), Some(last), "there is nothing to read");
    }
}
