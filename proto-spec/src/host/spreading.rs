//! News for everybody: what this host publishes, what it lets pass, and with whom it exchanges news.

use std::collections::BTreeSet;

use super::{Action, ActionId, Actions, Host};
use crate::error::DecodeError;
use crate::gossip::{News, Verdict};
use crate::header::SignedHeader;
use crate::limits::GOSSIP_NEAR;
use crate::types::{Now, TransportKey};
use crate::wire::{Address, Message, Unverified};

impl Host {
    /// Somebody passed news on: nothing goes further before it was checked here.
    pub(super) fn on_gossip(
        &mut self,
        now: Now,
        id: ActionId,
        message: Result<Unverified<Message>, DecodeError>,
        actions: &mut Actions,
    ) {
        let verdict = match message.map(Unverified::into_unchecked) {
            // What this host combined itself, or was shown, it passes on like anything else: each goes through it once.
            Ok(Message::News(News::Beacon(beacon))) if self.beacons.back() == Some(&beacon) => Verdict::Accept,
            Ok(Message::News(News::Header(header))) if self.is_newest(&header) => Verdict::Accept,
            Ok(Message::News(News::Beacon(beacon))) => self.take_beacon(now, &beacon, actions),
            Ok(Message::News(News::Header(header))) => {
                let verdict = self.take_header(now, &header, actions);
                if verdict == Verdict::Accept {
                    self.catch_up(now, header.header.record, actions);
                }
                verdict
            }
            // Of a binary that speaks a newer language.
            Err(DecodeError::Version(_)) => Verdict::Ignore,
            Ok(_) | Err(_) => Verdict::Reject,
        };
        actions.push(Action::Judge { id, verdict });
    }

    fn is_newest(&self, signed: &SignedHeader) -> bool {
        self.header.as_ref().is_some_and(|(header, _)| header.signed() == signed)
    }

    pub(super) fn publish(news: News, actions: &mut Actions) {
        actions.push(Action::Publish { message: Box::new(Message::News(news)) });
    }

    /// Members came or went, or may be elsewhere now: said once, however many records of it were applied.
    pub(super) fn tick_circle(&mut self, actions: &mut Actions) {
        if std::mem::take(&mut self.circle_changed) {
            self.tell_circle(actions);
        }
    }

    /// With whom news is exchanged: all members. To some of them a connection is held, so that all are joined to each
    /// other though most need nobody but the committee: those that follow this host in the order of the identities.
    fn tell_circle(&self, actions: &mut Actions) {
        let records = &self.ground.records;
        let own = &self.own.host;
        let after = records.members().filter(|member| member.record().host > *own);
        let before = records.members().filter(|member| member.record().host < *own);
        let members: Vec<TransportKey> = after.chain(before).map(|member| member.record().transport).collect();
        let near: Vec<(TransportKey, Address)> =
            members.iter().take(GOSSIP_NEAR).map(|key| (*key, self.address_of(key))).collect();
        // Whoever may serve records is heard too: a host that lost or dropped its own knows no members.
        let known: BTreeSet<TransportKey> = members.into_iter().chain(self.told_of()).collect();
        actions.push(Action::Circle { members: known.into_iter().collect(), near });
    }
}
