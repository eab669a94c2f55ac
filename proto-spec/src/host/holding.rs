//! What this host does as a holder.

use super::{Action, ActionId, Actions, Host, Lane, Table, Waiting, Write, piece_row, share_write};
use crate::attest::evidence::SignedEvidence;
use crate::error::{Check, Subject};
use crate::holder::{Offer, Release};
use crate::limits::REQUESTS_OPEN_MAX;
use crate::types::{CredentialId, Digest, Now, RequestId, TransportKey};
use crate::wire::{Message, Shown};
use serde_bytes::ByteBuf;

impl Host {
    /// So much of the disk is free: whoever places shares is told where that changes what this host takes.
    pub(super) fn on_room(&mut self, free: u64, actions: &mut Actions) {
        let before = self.holder.is_full();
        self.holder.free(free);
        if let Some(evidence) = self.attester.newest().filter(|_| self.holder.is_full() != before).cloned() {
            self.show_evidence(&evidence, actions);
        }
    }

    pub(super) fn on_share_store(
        &mut self,
        now: Now,
        from: TransportKey,
        request: RequestId,
        offer: Offer<'_>,
        actions: &mut Actions,
    ) {
        let lane = Lane::Group(offer.group);
        let accepted = match (self.ground.view(now, self.header.as_ref()), self.own.holder_keys()) {
            (Some(_), Some(_)) if self.may_lose_unlock() => Err(Check::Locked),
            (Some(view), Some(keys)) if !self.disk_failed => self.holder.accept(view, keys, offer),
            (Some(_), None) => Err(Check::Locked),
            _ => Err(Check::NotReady),
        };
        match accepted {
            Ok(accepted) => {
                if let Some((key, stored)) = accepted.write {
                    let mut writes = vec![share_write(&key, &stored)];
                    writes.extend((0..).zip(offer.pieces).map(|(number, piece)| Write {
                        table: Table::Payloads,
                        key: piece_row(&key, number),
                        value: Some(piece.to_vec()),
                    }));
                    actions.push(Action::Persist { lane, writes });
                }
                // In the lane of the write: the receipt leaves when the share is on disk, also when it is asked again.
                self.send(lane, from, Message::ShareStored { request, receipt: accepted.receipt }, actions);
            }
            Err(check) => {
                if check == Check::Group {
                    self.look_for_more(now, actions); // the group may stand in a record that is not here yet
                }
                let subject = Subject::Host(self.own.host);
                self.refuse(Lane::Direct, from, request, check, subject, actions);
            }
        }
    }

    pub(super) fn on_share_request(
        &mut self,
        now: Now,
        from: TransportKey,
        request: RequestId,
        id: &CredentialId,
        shown: &Shown,
        actions: &mut Actions,
    ) {
        let subject = Subject::Host(shown.evidence.evidence.host);
        if !self.take_beacon_of(now, from, &shown.epoch, actions) {
            return;
        }
        match self.release(now, &from, id, &shown.evidence) {
            Ok(Release { head, index, commitments, sealed }) => {
                let message = Message::ShareReply { request, head, index, commitments, sealed };
                self.send(Lane::Direct, from, message, actions);
            }
            Err(check) => {
                if matches!(check, Check::Unknown | Check::Behind) {
                    self.look_for_more(now, actions);
                }
                self.refuse(Lane::Direct, from, request, check, subject, actions);
            }
        }
    }

    fn release(
        &mut self,
        now: Now,
        from: &TransportKey,
        id: &CredentialId,
        evidence: &SignedEvidence,
    ) -> Result<Release, Check> {
        let view = self.ground.view(now, self.header.as_ref()).ok_or(Check::NotReady)?;
        // After a start nothing leaves before this host has shown, in a current epoch, what it runs itself.
        self.attester.current(view).ok_or(Check::OwnEpoch)?;
        // Whom a record that is not here yet cut off gets nothing.
        view.follows_header()?;
        let keys = self.own.holder_keys().ok_or(Check::Locked)?;
        let (appraised, reader) = view.appraise(evidence)?;
        if reader.transport != *from {
            return Err(Check::Transport);
        }
        let session = &appraised.evidence().session;
        self.holder.release(view, keys, &mut self.generator, id, reader, session)
    }

    pub(super) fn on_payload_request(
        &mut self,
        now: Now,
        from: TransportKey,
        request: RequestId,
        id: &CredentialId,
        head: &Digest,
        actions: &mut Actions,
    ) {
        let pieces = match self.view(now) {
            Some(view) => match view.records.member_by_transport(&from) {
                Some(reader) => self.holder.payload(view, id, head, reader.record()),
                None => Err(Check::Membership),
            },
            None => Err(Check::NotReady),
        };
        match pieces {
            Ok(_) if self.blobs.len() >= REQUESTS_OPEN_MAX => {
                self.refuse(Lane::Direct, from, request, Check::Capacity, Subject::Host(self.own.host), actions);
            }
            Ok((key, pieces)) => {
                let action = self.fresh_id();
                self.blobs.insert(action, Waiting { to: from, request });
                let keys = (0..pieces).map(|piece| piece_row(&key, piece)).collect();
                actions.push(Action::LoadBlobs { id: action, keys });
            }
            Err(check) => self.refuse(Lane::Direct, from, request, check, Subject::Host(self.own.host), actions),
        }
    }

    pub(super) fn on_blobs(&mut self, id: ActionId, blobs: Option<Vec<Vec<u8>>>, actions: &mut Actions) {
        let Some(Waiting { to, request }) = self.blobs.remove(&id) else { return };
        match blobs {
            Some(pieces) => {
                let pieces = pieces.into_iter().map(ByteBuf::from).collect();
                self.send(Lane::Direct, to, Message::PayloadReply { request, pieces }, actions);
            }
            None => self.refuse(Lane::Direct, to, request, Check::Payload, Subject::Host(self.own.host), actions),
        }
    }
}
