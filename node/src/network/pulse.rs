//! Which connections are alive. TCP alone would hold on to one whose packets were lost in an outage, and try again only
//! after pauses that double: long after the network is back nothing would get through.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::ping;
use libp2p::swarm::ConnectionId;

/// How often a connection is tried.
const EVERY: Duration = Duration::from_secs(2);
/// One that has not answered for so long is dead. A message that fills a slow line for longer takes it with it: lines
/// below 2 Mbit/s carry no large payload.
const SILENT: Duration = Duration::from_secs(5);

/// Tries each connection.
pub(super) fn behaviour() -> ping::Behaviour {
    ping::Behaviour::new(ping::Config::new().with_interval(EVERY).with_timeout(SILENT))
}

/// When each open connection answered last, and when that was looked at.
#[derive(Default)]
pub(super) struct Pulse(BTreeMap<ConnectionId, Instant>, Option<Instant>);

impl Pulse {
    /// A connection was opened.
    pub(super) fn begin(&mut self, connection: ConnectionId) {
        self.0.insert(connection, Instant::now());
    }

    /// A connection was closed.
    pub(super) fn end(&mut self, connection: ConnectionId) {
        self.0.remove(&connection);
    }

    /// A connection was tried.
    pub(super) fn felt(&mut self, event: &ping::Event) {
        if let Some(answered) = self.0.get_mut(&event.connection).filter(|_| event.result.is_ok()) {
            *answered = Instant::now();
        }
    }

    /// Connections that are dead.
    pub(super) fn dead(&mut self) -> Vec<ConnectionId> {
        let now = Instant::now();
        // This task itself was held up: answers wait to be seen.
        if self.1.replace(now).is_some_and(|last| now.duration_since(last) > EVERY) {
            self.0.values_mut().for_each(|answered| *answered = now);
        }
        self.0.iter().filter(|(_, answered)| answered.elapsed() > SILENT).map(|(connection, _)| *connection).collect()
    }
}
