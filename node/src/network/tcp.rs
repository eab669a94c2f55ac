//! Connections over TCP: Noise under yamux, and an end that does not wait.

use std::pin::Pin;
use std::task::{Context, Poll};

use libp2p::core::Transport as _;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent};
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{PeerId, noise, tcp, yamux};

use super::STREAMS_OPEN;

/// The transport of a host with this key.
pub(super) fn transport(keypair: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let mut streams = yamux::Config::default();
    streams.set_max_num_streams(STREAMS_OPEN);
    let upgraded = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keypair)?)
        .multiplex(streams);
    Ok(upgraded.map(|(peer, connection), _| (peer, StreamMuxerBox::new(Abrupt(connection)))).boxed())
}

/// Ends without a farewell. The library waits for the last byte to leave, without a limit: where packets are lost and
/// the socket takes no more, a connection that was found dead would stay open, and take messages, until the kernel gives
/// up a quarter of an hour later. What matters here is answered, so that nothing rests on the farewell.
struct Abrupt<M>(M);

impl<M: StreamMuxer + Unpin> Abrupt<M> {
    fn inner(self: Pin<&mut Self>) -> Pin<&mut M> {
        Pin::new(&mut self.get_mut().0)
    }
}

impl<M: StreamMuxer + Unpin> StreamMuxer for Abrupt<M> {
    type Substream = M::Substream;
    type Error = M::Error;

    fn poll_inbound(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<M::Substream, M::Error>> {
        self.inner().poll_inbound(context)
    }

    fn poll_outbound(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<M::Substream, M::Error>> {
        self.inner().poll_outbound(context)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), M::Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, M::Error>> {
        self.inner().poll(context)
    }
}
