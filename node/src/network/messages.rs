//! Messages between hosts: the library's request-response. It asks nobody who the peer is; here strangers are few, and
//! what they send is small, so that they can neither fill this host's memory nor keep its members out.

use std::collections::{BTreeMap, BTreeSet};
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::request_response::{self, OutboundRequestId, ProtocolSupport, ResponseChannel};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use thiserror::Error;

use super::codec::{Circle, Codec, Far, Frame, Next};
use super::{DELIVERY, STREAMS};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/vouchsafe/1");
/// Connections that strangers opened: joiners are few, and members stay welcome however many others come.
pub(super) const STRANGERS: usize = 128;

/// A stranger too many.
#[derive(Debug, Error)]
#[error("{STRANGERS} strangers are connected")]
struct TooManyStrangers;

/// The library's part, and who is at each end of its connections.
pub(super) struct Messages {
    inner: request_response::Behaviour<Codec>,
    circle: Circle,
    next: Next,
    /// Connections that others opened.
    opened: BTreeMap<ConnectionId, PeerId>,
}

impl Messages {
    pub(super) fn new() -> Self {
        let (circle, next) = (Circle::default(), Next::default());
        let config =
            request_response::Config::default().with_request_timeout(DELIVERY).with_max_concurrent_streams(STREAMS);
        let codec = Codec::template(circle.clone(), next.clone());
        let inner = request_response::Behaviour::with_codec(codec, [(PROTOCOL, ProtocolSupport::Full)], config);
        Self { inner, circle, next, opened: BTreeMap::new() }
    }

    /// These are no strangers.
    pub(super) fn set_circle(&self, members: BTreeSet<PeerId>) {
        self.circle.set(members);
    }

    pub(super) fn send(&mut self, peer: &PeerId, frame: Frame, addresses: Vec<Multiaddr>) -> OutboundRequestId {
        self.inner.send_request_with_addresses(peer, frame, addresses)
    }

    /// Says that a message was taken. A peer that is gone again does not hear it: it was all the same.
    pub(super) fn taken(&mut self, channel: ResponseChannel<()>) {
        let _closed = self.inner.send_response(channel, ());
    }
}

impl NetworkBehaviour for Messages {
    type ConnectionHandler = <request_response::Behaviour<Codec> as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = request_response::Event<Frame, ()>;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let strangers = || self.opened.values().filter(|peer| !self.circle.contains(peer)).count();
        if !self.circle.contains(&peer) && strangers() >= STRANGERS {
            return Err(ConnectionDenied::new(TooManyStrangers));
        }
        self.next.set(Far::Opened(peer));
        let handler = self.inner.handle_established_inbound_connection(connection, peer, local, remote)?;
        self.opened.insert(connection, peer);
        Ok(handler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.next.set(Far::Dialled);
        self.inner.handle_established_outbound_connection(connection, peer, remote, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::ConnectionClosed(closed) => drop(self.opened.remove(&closed.connection_id)),
            // Another behaviour did not want it.
            FromSwarm::ListenFailure(failure) => drop(self.opened.remove(&failure.connection_id)),
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        self.inner.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_take_no_place_of_a_member_and_make_room_when_they_go() {
        let mut messages = Messages::new();
        let member = PeerId::random();
        messages.set_circle(BTreeSet::from([member]));
        let nowhere = Multiaddr::empty();
        let open = |messages: &mut Messages, number: usize, peer: PeerId| {
            let id = ConnectionId::new_unchecked(number);
            messages.handle_established_inbound_connection(id, peer, &nowhere, &nowhere).is_ok()
        };
        assert!((0..STRANGERS).all(|number| open(&mut messages, number, PeerId::random())));
        assert!(!open(&mut messages, STRANGERS, PeerId::random()), "one stranger too many");
        assert!(open(&mut messages, STRANGERS, member));
        assert!(!open(&mut messages, STRANGERS + 1, PeerId::random()));
        messages.opened.remove(&ConnectionId::new_unchecked(0));
        assert!(open(&mut messages, STRANGERS + 1, PeerId::random()));
    }
}
