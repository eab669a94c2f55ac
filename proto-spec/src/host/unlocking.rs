//! How a started host gets at its shards again: the holders of the mesh key each give their part of its unlock, against
//! evidence that they appraise themselves, sealed to the session key in that evidence. No human, no external service.

use super::{Actions, Host, Lane, Report};
use crate::error::{Check, Subject};
use crate::limits::UNLOCK_RETRY_MS;
use crate::membership::{MemberRecord, Role};
use crate::signing::{Memory, Parts, Signable, combine};
use crate::types::{BlsSignature, Digest, HostId, MeshId, Now, Purpose, Round, ShareIndex, Time, TransportKey};
use crate::wire::{Message, Shown};

/// Parts of this host's unlock.
#[derive(Default)]
pub(super) struct Unlocking {
    parts: Parts,
    /// Of which shares, and for which number.
    of: (u64, u64),
    /// When it is asked for again.
    pub(super) again_at: Option<Time>,
}

/// The `info` under which a part is sealed.
fn info(mesh: &MeshId, from: &HostId, to: &HostId, number: u64, index: ShareIndex, round: Round) -> Digest {
    let (number, round) = (number.to_be_bytes(), round.0.to_be_bytes());
    Purpose::UnlockSeal.digest(&[&mesh.0, &from.0, &to.0, &number, &[index.0], &round])
}

impl Host {
    fn wants_unlock(&self) -> Option<(&MemberRecord, u64)> {
        let record = self.own_member()?.record();
        Some((record, self.wanted_number()?)).filter(|_| record.role == Role::Host)
    }

    /// Asks all holders of the mesh key, with evidence of this epoch.
    pub(super) fn ask_unlock(&mut self, now: Now, actions: &mut Actions) {
        let Some((_, number)) = self.wants_unlock() else { return };
        self.unlocking.again_at = Some(now.monotonic.plus(UNLOCK_RETRY_MS));
        let Some(shown) = self.shown(now) else { return };
        for to in self.key_holders() {
            let message = Message::UnlockRequest { number, shown: shown.clone() };
            self.send(Lane::Direct, to, message, actions);
        }
    }

    pub(super) fn tick_unlock(&mut self, now: Now, actions: &mut Actions) {
        if self.unlocking.again_at.is_some_and(|at| now.monotonic >= at) {
            self.unlocking.again_at = None;
            self.ask_unlock(now, actions);
        }
    }

    /// A member asks for its unlock.
    pub(super) fn on_unlock_request(
        &mut self,
        now: Now,
        from: TransportKey,
        number: u64,
        shown: &Shown,
        actions: &mut Actions,
    ) {
        if !self.take_beacon_of(now, from, &shown.epoch, actions) {
            return;
        }
        match self.unlock_part(now, &from, number, shown) {
            Ok(message) => self.send(Lane::Direct, from, message, actions),
            // Everybody is starting: it asks again by itself.
            Err(check) if check.is_passing() => {}
            Err(check) => {
                let subject = Subject::Host(shown.evidence.evidence.host);
                self.refusal(crate::error::Refused::new(check, subject), actions);
            }
        }
    }

    fn unlock_part(&mut self, now: Now, from: &TransportKey, number: u64, shown: &Shown) -> Result<Message, Check> {
        let view = self.ground.view(now, self.header.as_ref()).ok_or(Check::NotReady)?;
        let share = self.share.as_ref().ok_or(Check::NotLeader)?;
        // Who was cut off in a record that is not here yet must not be let in by this host.
        view.follows_header()?;
        let (appraised, record) = view.appraise(&shown.evidence)?;
        if record.transport != *from {
            return Err(Check::Transport);
        }
        // The recorded one, and the next for whoever is about to go on to it; never an earlier one.
        let recorded = view.records.roll().unlock_number(&record.host);
        let is_next = number == recorded.saturating_add(1) && view.records.may_rewrap(&record.host);
        if number != recorded && !is_next {
            return Err(Check::Record);
        }
        let digest = record.digest(view.mesh);
        let what = Signable::Unlock { host: &record.host, record: &digest, number };
        let part = what.partial(view.suite, view.mesh, &share.secret, Memory::default()).ok_or(Check::NotReady)?;
        let (round, session) = (appraised.evidence().round, &appraised.evidence().session);
        let info = info(view.mesh, &self.own.host, &record.host, number, share.index, round);
        let sealed = view.suite.hpke_seal(session, &info.0, &part.0, &mut self.generator).ok_or(Check::Quote)?;
        Ok(Message::UnlockPart { number, round, key_epoch: share.key_epoch, index: share.index, sealed })
    }

    /// A holder's part of this host's unlock.
    pub(super) fn on_unlock_part(
        &mut self,
        now: Now,
        host: &HostId,
        (number, round): (u64, Round),
        (key_epoch, index): (u64, ShareIndex),
        sealed: &[u8],
        actions: &mut Actions,
    ) {
        let Some((record, wanted)) = self.wants_unlock().map(|(record, number)| (record.clone(), number)) else {
            return;
        };
        let Some(view) = self.ground.view(now, self.header.as_ref()) else { return };
        let Some(setup) = view.records.committee().map(|committee| &committee.key) else { return };
        if setup.key_epoch != key_epoch || setup.index_of(host) != Some(index) || number != wanted {
            return;
        }
        let info = info(view.mesh, host, &self.own.host, number, index, round);
        let opened = self.attester.sessions_of(round).find_map(|key| view.suite.hpke_open(key, &info.0, sealed));
        let Some(part) = opened.and_then(|bytes| BlsSignature::from_slice(bytes.expose())) else { return };
        if self.unlocking.of != (key_epoch, number) {
            self.unlocking.parts.clear();
            self.unlocking.of = (key_epoch, number);
        }
        self.unlocking.parts.insert(index, part);
        let digest = record.digest(view.mesh);
        let what = Signable::Unlock { host: &record.host, record: &digest, number };
        let suite = view.suite;
        if let Ok(unlock) = combine(suite, view.mesh, setup, what, &mut self.unlocking.parts) {
            let suite = self.ground.suite.clone();
            self.own.periods.open(suite.as_ref(), &self.own.identity.tpm_bound, number, &unlock);
            self.unlocking = Unlocking::default();
            if number == self.unlock_number() {
                actions.push(super::Action::Report(Report::Unlocked));
                // The next quote names the share-receiving key; no need to wait for the next epoch.
                self.attester.ask_again_at_once();
            }
        }
    }
}
