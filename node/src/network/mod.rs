//! The network: libp2p over QUIC and over TCP with Noise, on one port number. The only place that names libp2p.
//!
//! It carries bytes between transport keys and knows nothing of what they say. Its own bounds are those of sockets:
//! connections, streams, bytes that wait for a peer.

mod codec;
mod doors;
mod gossip;
mod messages;
mod pulse;
mod tcp;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use codec::{Circle, Frame};
use doors::Doors;
use gossip::{Gossip, Gossipsub};
use libp2p::futures::StreamExt as _;
use libp2p::identity::{Keypair, PublicKey, ed25519};
use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::request_response::{self, OutboundFailure, OutboundRequestId};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{PeerId, SwarmBuilder, memory_connection_limits, ping};
use messages::Messages;
use pulse::Pulse;
use spec::error::DecodeError;
use spec::gossip::Verdict;
use spec::limits::MESSAGE_MAX;
use spec::types::{SecretBytes, TransportKey};
use spec::wire::Address;
use thiserror::Error;
use tokio::sync::mpsc;

/// A message is delivered in this time or reported as undeliverable.
const DELIVERY: Duration = Duration::from_secs(8);
/// A message that has not even been reported by then is given up: some look-up, dial and delivery longer than any takes.
const LOST: Duration = Duration::from_secs(12);
/// How often it is looked for such.
const SWEEP: Duration = Duration::from_secs(1);
/// A QUIC connection on which nothing comes, not even what keeps it alive, is dead after this time: a host that was
/// killed and is back must not wait longer for its peers to notice (TCP tells them at once).
const SILENT_CONNECTION: Duration = Duration::from_secs(3);
/// A look-up of a peer's name is given up after this time.
const LOOK_UP: Duration = Duration::from_secs(2);
/// A dial is given up after this time, over TCP too: a first packet that was lost in an outage is sent again only after
/// 1, 3, 7, 15 seconds, and until then nothing else would be tried.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// Bytes of one QUIC stream that may have come and not be read yet: most of a message. Whoever sends its end first fills it.
const WINDOW: u32 = 1 << 20;
/// An idle connection is kept over several epochs.
const IDLE: Duration = Duration::from_secs(120);
/// Messages to one peer that are under way at once; further ones wait their turn.
const UNDER_WAY: usize = 8;
/// Streams of one connection in both directions together: room for a peer's messages beside this host's own.
const STREAMS: usize = 4 * UNDER_WAY;
/// Streams that a peer may have open on one connection, gossip's and pings beside: each may fill a window that nobody reads
/// as long as it does not say what it is for.
const STREAMS_OPEN: usize = 2 * STREAMS;
/// Bytes that may wait for one peer; beyond them messages to it are undeliverable.
const WAITING_BYTES: usize = 16 * MESSAGE_MAX;
/// Arrivals that may wait for the driver; while it is full, nothing more is read from sockets.
const ARRIVALS: usize = 64;
/// Orders that may wait for the network: an announcement to every member, twice.
const ORDERS: usize = 1024;
/// Share of the machine's memory beyond which no connection is taken.
const MEMORY_SHARE: f64 = 0.9;

/// What the network cannot start with.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// The address to listen on.
    #[error("cannot listen on `{0}`: {1}")]
    Listen(String, String),
    /// The transport key.
    #[error("the transport key does not parse")]
    Key,
}

/// Something to do.
#[derive(Debug)]
pub enum Order {
    /// Send bytes.
    Send {
        /// The peer.
        to: TransportKey,
        /// Where it may be.
        address: Address,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Close all connections of a peer.
    Disconnect(TransportKey),
    /// Spread bytes to everybody.
    Publish(Vec<u8>),
    /// What becomes of something that was passed on.
    Judge(u64, Verdict),
    /// Exchange news with these, and hold connections to some.
    Circle(Vec<TransportKey>, Vec<(TransportKey, Address)>),
}

/// Something that happened.
#[derive(Debug)]
pub enum Arrival {
    /// Bytes came over a connection that proved this key.
    Bytes(TransportKey, Arc<Vec<u8>>),
    /// Somebody passed on what is for everybody; its name, for the verdict.
    News(u64, Vec<u8>),
    /// A message came that was not read.
    Garbage(TransportKey, DecodeError),
    /// A message could not be delivered.
    Undeliverable(TransportKey),
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    doors: Doors,
    memory: memory_connection_limits::Behaviour,
    ping: ping::Behaviour,
    messages: Messages,
    gossip: Gossipsub,
}

/// A message under way.
struct Sent {
    to: TransportKey,
    peer: PeerId,
    address: Address,
    bytes: Arc<Vec<u8>>,
    again: bool,
    /// When it came, or was handed to a connection.
    since: Instant,
}

/// The network's task.
pub struct Network {
    swarm: Swarm<Behaviour>,
    under_way: BTreeMap<OutboundRequestId, Sent>,
    waiting: BTreeMap<PeerId, usize>,
    lines: BTreeMap<PeerId, Line>,
    /// When each peer's last message came or was answered.
    active: BTreeMap<PeerId, Instant>,
    /// Open connections, and since when.
    connections: BTreeMap<PeerId, BTreeMap<ConnectionId, Instant>>,
    pulse: Pulse,
    orders: mpsc::Receiver<Order>,
    arrivals: mpsc::Sender<Arrival>,
    gossip: Gossip,
    /// Who is no stranger.
    circle: Circle,
    /// Peers to hold a connection to, whose names were looked up.
    near: (mpsc::UnboundedSender<Near>, mpsc::UnboundedReceiver<Near>),
    /// Messages whose peer's name is being looked up: one question at a time, which nobody can call back.
    looked_up: BTreeMap<PeerId, Vec<Sent>>,
    /// Names that were looked up.
    resolved: (mpsc::UnboundedSender<Near>, mpsc::UnboundedReceiver<Near>),
}

/// Messages to one peer.
#[derive(Default)]
struct Line {
    under_way: usize,
    waiting: VecDeque<Resolved>,
}

/// A message and where its peer is.
type Resolved = (Sent, Vec<Multiaddr>);

/// A peer and where it is.
type Near = (PeerId, Vec<Multiaddr>);

/// Ends of the network's two queues.
pub struct Ends {
    /// Takes orders.
    pub orders: mpsc::Sender<Order>,
    /// Gives arrivals.
    pub arrivals: mpsc::Receiver<Arrival>,
}

impl Network {
    /// Listens; nothing moves before `run`.
    ///
    /// # Errors
    /// Where the address or the key is not usable.
    pub async fn listen(transport: &SecretBytes, listen: &str) -> Result<(Self, Ends), NetworkError> {
        let mut seed = transport.expose().to_vec();
        let secret = ed25519::SecretKey::try_from_bytes(&mut seed).map_err(|_| NetworkError::Key)?;
        let keypair = Keypair::from(ed25519::Keypair::from(secret));
        let failed = |error: &dyn std::fmt::Display| NetworkError::Listen(listen.to_owned(), error.to_string());
        let address = tokio::net::lookup_host(listen)
            .await
            .map_err(|error| failed(&error))?
            .next()
            .ok_or_else(|| failed(&"no such address"))?;
        let circle = Circle::default();
        let behaviour = behaviour(&circle).ok_or_else(|| failed(&"gossip does not start"))?;
        let mut swarm = SwarmBuilder::with_existing_identity(keypair)
            .with_tokio()
            .with_quic_config(|mut config| {
                config.max_idle_timeout = millis(SILENT_CONNECTION);
                config.keep_alive_interval = SILENT_CONNECTION / 3;
                config.handshake_timeout = HANDSHAKE;
                config.max_stream_data = WINDOW;
                config.max_connection_data = 2 * WINDOW;
                config
            })
            .with_other_transport(|keypair| tcp::transport(keypair).map_err(Box::from))
            .map_err(|error| failed(&error))?
            .with_behaviour(|_| behaviour)
            .map_err(|error| failed(&error))?
            .with_swarm_config(|config| {
                config.with_idle_connection_timeout(IDLE).with_max_negotiating_inbound_streams(STREAMS_OPEN)
            })
            .with_connection_timeout(HANDSHAKE)
            .build();
        for multiaddr in multiaddrs(address) {
            swarm.listen_on(multiaddr).map_err(|error| failed(&error))?;
        }
        let (orders, orders_end) = mpsc::channel(ORDERS);
        let (arrivals, arrivals_end) = mpsc::channel(ARRIVALS);
        let network = Self {
            swarm,
            under_way: BTreeMap::new(),
            waiting: BTreeMap::new(),
            lines: BTreeMap::new(),
            active: BTreeMap::new(),
            connections: BTreeMap::new(),
            pulse: Pulse::default(),
            orders: orders_end,
            arrivals,
            gossip: Gossip::default(),
            circle,
            near: mpsc::unbounded_channel(),
            looked_up: BTreeMap::new(),
            resolved: mpsc::unbounded_channel(),
        };
        Ok((network, Ends { orders, arrivals: arrivals_end }))
    }

    /// Runs until the driver drops its ends.
    pub async fn run(mut self) {
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                // In this order: what the driver asks for is bounded by what it does, what peers send by nothing.
                biased;
                order = self.orders.recv() => match order {
                    Some(Order::Send { to, address, bytes }) => self.send(to, &address, bytes).await,
                    Some(Order::Disconnect(key)) => self.disconnect(&key),
                    Some(Order::Publish(bytes)) => Gossip::publish(&mut self.swarm.behaviour_mut().gossip, bytes),
                    Some(Order::Judge(name, verdict)) => {
                        self.gossip.judge(&mut self.swarm.behaviour_mut().gossip, name, verdict);
                    }
                    Some(Order::Circle(members, near)) => self.set_circle(&members, near),
                    None => return,
                },
                Some((peer, addresses)) = self.near.1.recv() => self.hold(peer, addresses),
                Some((peer, addresses)) = self.resolved.1.recv() => {
                    for sent in self.looked_up.remove(&peer).unwrap_or_default() {
                        self.dispatch(sent, addresses.clone());
                    }
                }
                _ = sweep.tick() => {
                    for dead in self.pulse.dead() {
                        let _closed_already = self.swarm.close_connection(dead);
                    }
                    self.give_up_late().await;
                }
                event = self.swarm.select_next_some() => {
                    self.on_swarm(event).await;
                }
            }
            if self.arrivals.is_closed() {
                return;
            }
        }
    }

    async fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Messages(event)) => self.on_message(event).await,
            SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => self.pulse.felt(&event),
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(event)) => {
                if let Some((_, name, bytes)) = self.gossip.arrived(&mut self.swarm.behaviour_mut().gossip, event) {
                    self.arrive(Arrival::News(name, bytes)).await;
                }
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.connected(peer_id, connection_id, endpoint.is_listener());
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } => {
                self.pulse.end(connection_id);
                if let Some(connections) = self.connections.get_mut(&peer_id) {
                    connections.remove(&connection_id);
                    if connections.is_empty() {
                        self.connections.remove(&peer_id);
                        self.active.remove(&peer_id);
                        Gossip::parted(&mut self.swarm.behaviour_mut().gossip, &peer_id);
                    }
                }
            }
            _ => {}
        }
    }

    /// A peer dials only where it has no connection: when it does, what was open before is dead on its side (it was
    /// killed and is back), and QUIC would take seconds to notice. Dials that crossed each other are left alone.
    fn connected(&mut self, peer: PeerId, connection: ConnectionId, from_peer: bool) {
        let now = Instant::now();
        let connections = self.connections.entry(peer).or_default();
        let dead: Vec<ConnectionId> = connections
            .iter()
            .filter(|(_, since)| from_peer && now.duration_since(**since) > HANDSHAKE)
            .map(|(id, _)| *id)
            .collect();
        connections.insert(connection, now);
        self.pulse.begin(connection);
        self.gossip.met(&mut self.swarm.behaviour_mut().gossip, &peer);
        for id in dead {
            let _closed_already = self.swarm.close_connection(id);
        }
    }

    /// These are heard from now on; to some of them a connection is held.
    fn set_circle(&mut self, members: &[TransportKey], near: Vec<(TransportKey, Address)>) {
        let circle: BTreeSet<PeerId> = members.iter().filter_map(peer_of).collect();
        self.end_idle(&circle);
        self.circle.set(circle.clone());
        self.gossip.set_circle(&mut self.swarm.behaviour_mut().gossip, circle, self.connections.keys());
        for (key, address) in near {
            let Some(peer) = peer_of(&key).filter(|peer| !self.swarm.is_connected(peer)) else { continue };
            let found = self.near.0.clone();
            tokio::spawn(async move {
                let addresses = tokio::time::timeout(LOOK_UP, resolve(&address)).await.unwrap_or_default();
                drop(found.send((peer, addresses)));
            });
        }
    }

    /// Gossip's streams keep a connection open for ever: one of somebody who is no member ends here.
    fn end_idle(&mut self, circle: &BTreeSet<PeerId>) {
        let is_idle = |peer: &PeerId, since: &BTreeMap<ConnectionId, Instant>| {
            let newest = since.values().max().into_iter().chain(self.active.get(peer)).max();
            newest.is_none_or(|newest| newest.elapsed() > IDLE)
        };
        let others = self.connections.iter().filter(|(peer, _)| !circle.contains(peer));
        let idle: Vec<PeerId> = others.filter(|(peer, since)| is_idle(peer, since)).map(|(peer, _)| *peer).collect();
        for peer in idle {
            let _gone_already = self.swarm.disconnect_peer_id(peer);
        }
    }

    fn hold(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        if !addresses.is_empty() {
            let dial = DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).addresses(addresses);
            let _under_way_already = self.swarm.dial(dial.build());
        }
    }

    async fn send(&mut self, to: TransportKey, address: &Address, bytes: Vec<u8>) {
        let Some(peer) = peer_of(&to) else { return self.undeliverable(to).await };
        let waiting = self.waiting.get(&peer).copied().unwrap_or(0);
        if waiting.saturating_add(bytes.len()) > WAITING_BYTES {
            return self.undeliverable(to).await;
        }
        *self.waiting.entry(peer).or_default() += bytes.len();
        self.route(Sent {
            to,
            peer,
            address: address.clone(),
            bytes: Arc::new(bytes),
            again: false,
            since: Instant::now(),
        });
    }

    /// Finds out where the peer is, if that takes a look-up, beside this loop: names of others may be slow to resolve.
    fn route(&mut self, sent: Sent) {
        if self.swarm.is_connected(&sent.peer) {
            return self.dispatch(sent, Vec::new());
        }
        if let Ok(address) = sent.address.0.parse::<SocketAddr>() {
            return self.dispatch(sent, multiaddrs(address).to_vec());
        }
        let (peer, address) = (sent.peer, sent.address.clone());
        if let Some(others) = self.looked_up.get_mut(&peer) {
            return others.push(sent);
        }
        self.looked_up.insert(peer, vec![sent]);
        let resolved = self.resolved.0.clone();
        tokio::spawn(async move { drop(resolved.send((peer, resolve(&address).await))) });
    }

    /// A resolver may be silent for half a minute, and the library may wait for ever for a connection that it closes.
    async fn give_up_late(&mut self) {
        let late = |sent: &Sent, after: Duration| sent.since.elapsed() > after;
        let lost: Vec<OutboundRequestId> =
            self.under_way.iter().filter(|(_, sent)| late(sent, LOST)).map(|(id, _)| *id).collect();
        let mut given_up: Vec<Sent> = lost.iter().filter_map(|id| self.done(id)).collect();
        let unresolved =
            self.looked_up.values_mut().flat_map(|waiting| waiting.extract_if(.., |one| late(one, LOOK_UP)));
        let unresolved: Vec<Sent> = unresolved.collect();
        unresolved.iter().for_each(|sent| self.no_more_waits(sent));
        given_up.extend(unresolved);
        // What waits behind messages to a host that is away is as late as they are: when it is back it hears what is new.
        let in_line = self.lines.values_mut().flat_map(|line| {
            let late = line.waiting.iter().take_while(|(sent, _)| late(sent, DELIVERY)).count();
            line.waiting.drain(..late)
        });
        let in_line: Vec<Sent> = in_line.map(|(sent, _)| sent).collect();
        in_line.iter().for_each(|sent| self.no_more_waits(sent));
        given_up.extend(in_line);
        for sent in given_up {
            self.undeliverable(sent.to).await;
        }
    }

    fn dispatch(&mut self, sent: Sent, addresses: Vec<Multiaddr>) {
        let line = self.lines.entry(sent.peer).or_default();
        if line.under_way >= UNDER_WAY {
            return line.waiting.push_back((sent, addresses));
        }
        line.under_way += 1;
        let frame = Frame::Message(sent.bytes.clone());
        let id = self.swarm.behaviour_mut().messages.send(&sent.peer, frame, addresses);
        self.under_way.insert(id, Sent { since: Instant::now(), ..sent });
    }

    fn done(&mut self, id: &OutboundRequestId) -> Option<Sent> {
        let sent = self.under_way.remove(id)?;
        self.no_more_waits(&sent);
        if let Some(line) = self.lines.get_mut(&sent.peer) {
            line.under_way = line.under_way.saturating_sub(1);
            match line.waiting.pop_front() {
                // It came while there was a connection; there may be none any more.
                Some((next, addresses)) if addresses.is_empty() => self.route(next),
                Some((next, addresses)) => self.dispatch(next, addresses),
                None if line.under_way == 0 => drop(self.lines.remove(&sent.peer)),
                None => {}
            }
        }
        Some(sent)
    }

    fn no_more_waits(&mut self, sent: &Sent) {
        if let Some(waiting) = self.waiting.get_mut(&sent.peer) {
            *waiting = waiting.saturating_sub(sent.bytes.len());
            if *waiting == 0 {
                self.waiting.remove(&sent.peer);
            }
        }
    }

    async fn on_message(&mut self, event: request_response::Event<Frame, ()>) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                request_response::Message::Request { request, channel, .. } => {
                    self.active.insert(peer, Instant::now());
                    self.swarm.behaviour_mut().messages.taken(channel);
                    let Some(key) = key_of(&peer) else { return };
                    let arrival = match request {
                        Frame::Message(bytes) => Arrival::Bytes(key, bytes),
                        Frame::TooLarge(got) => Arrival::Garbage(key, DecodeError::TooLong { got, max: MESSAGE_MAX }),
                    };
                    self.arrive(arrival).await;
                }
                request_response::Message::Response { request_id, .. } => drop(self.done(&request_id)),
            },
            request_response::Event::OutboundFailure { request_id, error, .. } => {
                tracing::debug!(%error, "a message was not delivered");
                let Some(sent) = self.done(&request_id) else { return };
                // The peer restarted: what was sent into its old connection is sent once more into a new one.
                if matches!(error, OutboundFailure::ConnectionClosed) && !sent.again {
                    *self.waiting.entry(sent.peer).or_default() += sent.bytes.len();
                    self.route(Sent { again: true, ..sent });
                } else {
                    self.undeliverable(sent.to).await;
                }
            }
            request_response::Event::InboundFailure { .. } | request_response::Event::ResponseSent { .. } => {}
        }
    }

    async fn undeliverable(&mut self, to: TransportKey) {
        self.arrive(Arrival::Undeliverable(to)).await;
    }

    async fn arrive(&mut self, arrival: Arrival) {
        // A driver that is gone ends `run` at its next turn.
        let _gone = self.arrivals.send(arrival).await;
    }

    fn disconnect(&mut self, key: &TransportKey) {
        if let Some(peer) = peer_of(key) {
            let _not_connected = self.swarm.disconnect_peer_id(peer);
        }
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn behaviour(circle: &Circle) -> Option<Behaviour> {
    Some(Behaviour {
        // First: what it refuses, the others never see.
        doors: Doors::new(circle.clone()),
        memory: memory_connection_limits::Behaviour::with_max_percentage(MEMORY_SHARE),
        ping: pulse::behaviour(),
        messages: Messages::new(circle.clone()),
        gossip: gossip::behaviour()?,
    })
}

/// host:port as both transports' addresses.
async fn resolve(address: &Address) -> Vec<Multiaddr> {
    match tokio::net::lookup_host(&address.0).await {
        Ok(found) => found.flat_map(multiaddrs).collect(),
        Err(_) => Vec::new(),
    }
}

fn multiaddrs(address: SocketAddr) -> [Multiaddr; 2] {
    let ip = Multiaddr::from(address.ip());
    let quic = ip.clone().with(Protocol::Udp(address.port())).with(Protocol::QuicV1);
    [quic, ip.with(Protocol::Tcp(address.port()))]
}

fn peer_of(key: &TransportKey) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(&key.0).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// The Ed25519 key stands inside the identity (an identity multihash): a peer of any other kind has none.
fn key_of(peer: &PeerId) -> Option<TransportKey> {
    let multihash: &libp2p::multihash::Multihash<64> = peer.as_ref();
    let public = PublicKey::try_decode_protobuf(multihash.digest()).ok()?;
    Some(TransportKey(public.try_into_ed25519().ok()?.to_bytes()))
}
