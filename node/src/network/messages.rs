//! Messages between hosts: the library's request-response. It reads alike whoever sends; here what strangers send is small,
//! so that they cannot fill this host's memory.

use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::request_response::{self, OutboundRequestId, ProtocolSupport, ResponseChannel};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol};

use super::codec::{Circle, Codec, Far, Frame, Next};
use super::{DELIVERY, STREAMS};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/vouchsafe/1");

/// The library's part, and who is at the far end of the connection for which it makes a codec.
pub(super) struct Messages {
    inner: request_response::Behaviour<Codec>,
    next: Next,
}

impl Messages {
    pub(super) fn new(circle: Circle) -> Self {
        let next = Next::default();
        let config =
            request_response::Config::default().with_request_timeout(DELIVERY).with_max_concurrent_streams(STREAMS);
        let codec = Codec::template(circle, next.clone());
        let inner = request_response::Behaviour::with_codec(codec, [(PROTOCOL, ProtocolSupport::Full)], config);
        Self { inner, next }
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
        self.next.set(Far::Opened(peer));
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
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
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        self.inner.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(context)
    }
}
