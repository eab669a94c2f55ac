//! Who may connect, and how many. The library's own limits keep a little of every peer that ever came, for ever
//! (libp2p-connection-limits 0.7 leaves an empty set behind for each), and know no members.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use thiserror::Error;

use super::codec::Circle;

/// Connections in both directions: every member of the largest mesh of this step, over both transports.
const CONNECTIONS: usize = 1200;
/// Connections that others opened: beyond them this host's own dials still go out.
const INCOMING: usize = 1000;
/// Connections that strangers opened: joiners are few, and members stay welcome however many others come. The stranger
/// that came first makes room for the next.
const STRANGERS: usize = 128;
/// Connections of one peer: QUIC and TCP at once, and one more while a restarted peer's old one dies.
const PER_PEER: usize = 4;
/// Connections that have not proven a key yet, each for a handshake's time: nobody knows yet whose they are.
const PENDING: usize = 512;

/// Of these so many come from one place: whoever fills them all needs many addresses. Hosts behind one address start
/// together, on both transports.
const PENDING_FROM_ONE: usize = 64;

/// A connection too many.
#[derive(Debug, Error)]
#[error("too many connections ({0})")]
struct TooMany(&'static str);

fn too_many(which: &'static str) -> ConnectionDenied {
    ConnectionDenied::new(TooMany(which))
}

/// Where a connection comes from: an IPv4 address, or the network of an IPv6 one (64 bits), of which one person has all.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place(Vec<u8>);

impl Place {
    fn of(remote: &Multiaddr) -> Option<Self> {
        remote.iter().find_map(|part| match part {
            Protocol::Ip4(address) => Some(Self(address.octets().to_vec())),
            Protocol::Ip6(address) => {
                let mapped = address.to_ipv4_mapped().map(|address| address.octets().to_vec());
                Some(Self(mapped.unwrap_or_else(|| address.octets().into_iter().take(8).collect())))
            }
            _ => None,
        })
    }
}

/// An open connection.
struct Open {
    peer: PeerId,
    /// Whether the peer opened it.
    incoming: bool,
}

/// The doors.
pub(super) struct Doors {
    circle: Circle,
    /// Connections that have not proven a key yet: others', and this host's own.
    pending: [BTreeMap<ConnectionId, Option<Place>>; 2],
    /// In the order in which they came.
    open: BTreeMap<ConnectionId, Open>,
    to_close: VecDeque<(PeerId, ConnectionId)>,
}

const OTHERS: usize = 0;
const OWN: usize = 1;

impl Doors {
    pub(super) fn new(circle: Circle) -> Self {
        Self { circle, pending: Default::default(), open: BTreeMap::new(), to_close: VecDeque::new() }
    }

    fn begin(&mut self, whose: usize, id: ConnectionId, place: Option<Place>) -> Result<(), ConnectionDenied> {
        let Some(pending) = self.pending.get_mut(whose).filter(|pending| pending.len() < PENDING) else {
            return Err(too_many("that have not proven a key"));
        };
        if place.is_some() && pending.values().filter(|other| **other == place).count() >= PENDING_FROM_ONE {
            return Err(too_many("from one place that have not proven a key"));
        }
        pending.insert(id, place);
        Ok(())
    }

    fn established(&mut self, id: ConnectionId, peer: PeerId, incoming: bool) -> Result<(), ConnectionDenied> {
        self.no_longer_pending(id);
        if self.open.values().filter(|open| open.peer == peer).count() >= PER_PEER {
            return Err(too_many("of one peer"));
        }
        if self.open.len() >= CONNECTIONS {
            return Err(too_many("in all"));
        }
        if incoming {
            if self.open.values().filter(|open| open.incoming).count() >= INCOMING {
                return Err(too_many("that others opened"));
            }
            self.make_room_for(&peer);
        }
        self.open.insert(id, Open { peer, incoming });
        Ok(())
    }

    fn no_longer_pending(&mut self, id: ConnectionId) {
        for pending in &mut self.pending {
            pending.remove(&id);
        }
    }

    fn make_room_for(&mut self, peer: &PeerId) {
        let is_stranger = |open: &Open| open.incoming && !self.circle.contains(&open.peer);
        let mut strangers = self.open.iter().filter(|(_, open)| is_stranger(open));
        let Some((id, first)) = strangers.next().map(|(id, open)| (*id, open.peer)) else { return };
        if !self.circle.contains(peer) && strangers.count() + 1 >= STRANGERS {
            self.open.remove(&id);
            self.to_close.push_back((first, id));
        }
    }

    fn ended(&mut self, id: ConnectionId) {
        self.no_longer_pending(id);
        self.open.remove(&id);
    }
}

impl NetworkBehaviour for Doors {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.begin(OTHERS, id, Place::of(remote))
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.established(id, peer, true)?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        _: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.begin(OWN, id, None)?;
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.established(id, peer, false)?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(closed) => self.ended(closed.connection_id),
            // Also of one that another behaviour did not want.
            FromSwarm::ListenFailure(failure) => self.ended(failure.connection_id),
            FromSwarm::DialFailure(failure) => self.ended(failure.connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.to_close.pop_front() {
            Some((peer_id, id)) => {
                Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(id) })
            }
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    /// A place of so many.
    fn place(number: usize) -> Option<Place> {
        Some(Place(number.to_be_bytes().to_vec()))
    }

    #[test]
    fn whoever_connects_from_one_place_and_says_nothing_keeps_nobody_else_out() {
        let mut doors = Doors::new(Circle::default());
        let remote = |text: &str| Place::of(&text.parse().unwrap());
        let one = remote("/ip6/2001:db8:0:1::7/tcp/9");
        assert!((0..PENDING_FROM_ONE).all(|number| doors.begin(OTHERS, id(number), one.clone()).is_ok()));
        let next_door = remote("/ip6/2001:db8:0:1:ffff::1/udp/8/quic-v1");
        assert!(doors.begin(OTHERS, id(1000), next_door).is_err(), "an address of the same network");
        assert!(doors.begin(OTHERS, id(1001), remote("/ip6/2001:db8:0:2::7/tcp/9")).is_ok());
        let (four, mapped) = (remote("/ip4/192.0.2.1/tcp/9"), remote("/ip6/::ffff:192.0.2.1/tcp/9"));
        assert!(four.is_some() && four == mapped);
        assert!(doors.begin(OTHERS, id(1002), four).is_ok());
        doors.ended(id(0));
        assert!(doors.begin(OTHERS, id(1003), one).is_ok());
    }

    #[test]
    fn strangers_take_no_place_of_a_member_and_the_first_makes_room_for_the_next() {
        let circle = Circle::default();
        let member = PeerId::random();
        circle.set(BTreeSet::from([member]));
        let mut doors = Doors::new(circle);
        doors.established(id(0), member, true).unwrap();
        let strangers: Vec<PeerId> = (0..STRANGERS).map(|_| PeerId::random()).collect();
        for (number, stranger) in strangers.iter().enumerate() {
            doors.established(id(number + 1), *stranger, true).unwrap();
        }
        assert!(doors.to_close.is_empty());
        doors.established(id(STRANGERS + 1), member, true).unwrap();
        assert!(doors.to_close.is_empty(), "a member is no stranger");
        doors.established(id(STRANGERS + 2), PeerId::random(), true).unwrap();
        assert_eq!(doors.to_close.pop_front(), Some((strangers[0], id(1))), "who came first, of the strangers");
        assert_eq!(doors.open.len(), STRANGERS + 2);
    }

    #[test]
    fn what_ends_leaves_nothing_behind() {
        let mut doors = Doors::new(Circle::default());
        for number in 0..3 * CONNECTIONS {
            doors.begin(OTHERS, id(number), place(number)).unwrap();
            doors.established(id(number), PeerId::random(), true).unwrap();
            doors.ended(id(number));
        }
        assert!(doors.open.is_empty() && doors.pending.iter().all(BTreeMap::is_empty));
    }

    #[test]
    fn one_peer_has_a_few_connections_and_a_handshake_takes_a_place_until_it_ends() {
        let mut doors = Doors::new(Circle::default());
        let peer = PeerId::random();
        assert!((0..PER_PEER).all(|number| doors.established(id(number), peer, false).is_ok()));
        assert!(doors.established(id(PER_PEER), peer, true).is_err());
        assert!((0..PENDING).all(|number| doors.begin(OTHERS, id(100 + number), place(number)).is_ok()));
        assert!(doors.begin(OTHERS, id(1), place(1)).is_err());
        assert!(doors.begin(OWN, id(2), None).is_ok(), "this host's own dials go out");
        doors.ended(id(100));
        assert!(doors.begin(OTHERS, id(1), place(1)).is_ok());
    }
}
