//! The event loop: virtual time, a network that delays and loses, disks that take their time. It knows the contract of
//! actions and nothing of the protocol.

use std::collections::{BTreeMap, VecDeque};

use sha2::{Digest as _, Sha256};
use spec::error::{Check, Failure, Misbehaved};
use spec::gossip::Verdict;
use spec::host::{
    Action, ActionId, Event, Lane, LocalCommand, LocalId, LocalReply, Report, TpmReply, TpmRequest, Write,
};
use spec::types::{HostId, Now, Time, TransportKey};
use spec::wire::{Address, Message, Unverified, decode_message, encode_message};

use crate::checkers::Checkers;
use crate::liar::Liar;
use crate::machine::Machine;
use crate::random::Random;
use crate::scenario::Scenario;

/// Wall clock at the start of every run.
pub const WALL_START_MS: u64 = 1_767_225_600_000;

/// Something that will happen.
enum Pending {
    Deliver {
        to: usize,
        from: TransportKey,
        bytes: Vec<u8>,
    },
    /// News that somebody published or passed on.
    News {
        from: TransportKey,
        bytes: Vec<u8>,
    },
    Undeliverable {
        peer: TransportKey,
    },
    Persisted {
        lane: Lane,
        writes: Vec<Write>,
    },
    /// With the planted fault only: the write that was acknowledged long ago.
    Durable {
        writes: Vec<Write>,
    },
    /// All before it in its lane is durable.
    Confirmed {
        id: ActionId,
    },
    Tpm {
        id: ActionId,
        request: TpmRequest,
    },
    Blobs {
        id: ActionId,
        keys: Vec<Vec<u8>>,
    },
    Sealed {
        id: ActionId,
        recipients: Vec<String>,
        plaintext: Vec<u8>,
    },
    Opened {
        id: ActionId,
        file: Vec<u8>,
    },
    Wake,
}

/// For whom, and for which of its starts.
struct Scheduled {
    machine: usize,
    incarnation: u64,
    what: Pending,
}

/// An answer to a local request.
pub struct Answer {
    /// Which.
    pub id: LocalId,
    /// The answer.
    pub reply: Result<LocalReply, Failure>,
}

/// The world.
pub struct World {
    /// Virtual milliseconds since the start.
    pub now_ms: u64,
    /// All machines.
    pub machines: Vec<Machine>,
    /// Draws everything.
    pub random: Random,
    /// What must never happen.
    pub checkers: Checkers,
    /// Answers that nobody has taken yet.
    pub answers: VecDeque<Answer>,
    /// Peers that were thrown out, where a hostile one plays along; otherwise that is a finding.
    pub thrown_out: Option<Vec<(usize, Misbehaved)>>,
    /// Who they were, one for one.
    pub thrown_out_machines: Vec<usize>,
    /// Everything that arrives somewhere, where somebody listens in: to whom, from whom, which bytes.
    pub overheard: Option<Vec<(usize, TransportKey, Vec<u8>)>>,
    /// Verdicts on what was passed on, where somebody publishes lies; otherwise a rejection is a finding.
    pub judged: Option<Vec<(usize, Verdict)>>,
    /// A host that lies about the mesh key.
    pub liar: Option<Liar>,
    /// Dealers that a host named: the host, the dealer, why.
    pub named: Vec<(usize, usize, Check)>,
    /// Milliseconds by which a machine's wall clock runs ahead.
    pub clocks_ahead_ms: BTreeMap<usize, u64>,
    /// Machines whose disks hang: no write ends, and none fails.
    pub hanging_disks: std::collections::BTreeSet<usize>,
    /// Whether messages get lost now.
    pub faults: bool,
    /// Machines that are cut off from all others, not from each other.
    pub cut_off: std::collections::BTreeSet<usize>,
    /// More under way at once is a storm: hosts that answer each other without end. In the largest mesh it stays far below.
    pub under_way_max: usize,
    /// The planted fault: what waits for a write is released before the write is durable.
    pub acknowledges_before_flush: bool,
    pub(crate) scenario: Scenario,
    connected: std::collections::BTreeSet<[(usize, u64); 2]>,
    queue: BTreeMap<(u64, u64), Scheduled>,
    sequence: u64,
    next_local: u64,
    trace: Sha256,
    /// Messages sent.
    pub messages: u64,
    /// Actions done,
    pub performed: u64,
    /// and that before which its host crashes.
    pub crash_before: Option<u64>,
    /// The host that did.
    pub fallen: Option<usize>,
}

impl World {
    /// A world without machines.
    pub fn new(scenario: Scenario, seed: u64) -> Self {
        Self {
            now_ms: 0,
            machines: Vec::new(),
            random: Random::new(seed),
            checkers: Checkers::default(),
            answers: VecDeque::new(),
            thrown_out: None,
            thrown_out_machines: Vec::new(),
            overheard: None,
            judged: None,
            liar: None,
            named: Vec::new(),
            clocks_ahead_ms: BTreeMap::new(),
            hanging_disks: std::collections::BTreeSet::new(),
            faults: false,
            cut_off: std::collections::BTreeSet::new(),
            under_way_max: 200_000,
            acknowledges_before_flush: false,
            scenario,
            connected: std::collections::BTreeSet::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            next_local: 0,
            trace: Sha256::new(),
            messages: 0,
            performed: 0,
            crash_before: None,
            fallen: None,
        }
    }

    fn now(&self, machine: usize) -> Now {
        // The monotonic clock starts elsewhere than the wall clock, so that nothing can confuse them.
        let ahead = self.clocks_ahead_ms.get(&machine).copied().unwrap_or(0);
        Now { monotonic: Time(self.now_ms + 5_000), wall_ms: WALL_START_MS + self.now_ms + ahead }
    }

    /// Digest over everything that every host did.
    pub fn trace_hash(&self) -> String {
        hex::encode(self.trace.clone().finalize())
    }

    /// Starts a machine from its disk.
    pub fn start(&mut self, machine: usize) {
        let started = self.machines.get_mut(machine).map(|m| m.start(&mut self.random));
        if let Some(Err(error)) = started {
            self.checkers.broken(format!("host {machine} does not start from its own disk: {error}"));
        }
        self.note(machine, "start", 0, 0);
        self.feed(machine, Event::Tick);
    }

    /// Crashes a machine.
    pub fn crash(&mut self, machine: usize) {
        self.note(machine, "crash", 0, 0);
        if let Some(machine) = self.machines.get_mut(machine) {
            machine.crash();
        }
    }

    /// Hands a local request to a host; `None` where it does not run.
    pub fn command(&mut self, machine: usize, command: LocalCommand) -> Option<LocalId> {
        self.machines.get(machine)?.running.as_ref()?;
        self.next_local += 1;
        let id = LocalId(self.next_local);
        self.feed(machine, Event::Command { id, command: Box::new(command) });
        Some(id)
    }

    /// Says something to a host in the name of a transport key, as a hostile peer does.
    pub fn inject(&mut self, machine: usize, from: TransportKey, message: Message) {
        // It came over a connection, and the answer goes back over it.
        if let Some(sender) = self.machines.iter().position(|machine| machine.transport == from) {
            let connection = self.connection(sender, machine);
            self.connected.insert(connection);
        }
        self.feed(machine, Event::Message { from, message: Box::new(Unverified::new(message)) });
    }

    /// Runs until this moment, or until an answer waits to be taken.
    pub fn run_until(&mut self, until_ms: u64) {
        while self.answers.is_empty() {
            let Some((&(at, sequence), _)) = self.queue.first_key_value() else { break };
            if at > until_ms {
                break;
            }
            if self.queue.len() > self.under_way_max {
                self.queue.clear();
                return self.checkers.broken(format!("P8 hosts answer each other without end at {at} ms"));
            }
            self.now_ms = self.now_ms.max(at);
            if let Some(scheduled) = self.queue.remove(&(at, sequence)) {
                self.happen(scheduled);
            }
        }
        if self.answers.is_empty() {
            self.now_ms = self.now_ms.max(until_ms);
        }
    }

    fn schedule(&mut self, after_ms: u64, machine: usize, what: Pending) {
        let incarnation = self.machines.get(machine).map_or(0, |machine| machine.incarnation);
        self.sequence += 1;
        self.queue.insert((self.now_ms + after_ms, self.sequence), Scheduled { machine, incarnation, what });
    }

    fn happen(&mut self, scheduled: Scheduled) {
        let Scheduled { machine, incarnation, what } = scheduled;
        let what = match what {
            Pending::Deliver { to, from, bytes } => return self.deliver(to, from, &bytes),
            other => other,
        };
        let Some(target) = self.machines.get_mut(machine) else { return };
        if target.incarnation != incarnation || target.running.is_none() {
            return;
        }
        let event = match what {
            Pending::Deliver { .. } => return,
            Pending::News { from, bytes } => return self.hear(machine, &from, bytes),
            Pending::Undeliverable { peer } => Event::Undeliverable { to: peer },
            Pending::Durable { writes } => return target.disk.apply(writes),
            Pending::Persisted { lane, writes } => {
                target.disk.apply(writes);
                return self.release(machine, lane);
            }
            Pending::Confirmed { id } => Event::Persisted { id },
            Pending::Tpm { id, request } => {
                let reply: Option<TpmReply> = target.tpm.answer(&request);
                Event::Tpm { id, reply }
            }
            Pending::Blobs { id, keys } => {
                let row = |key: &Vec<u8>| target.disk.row(spec::host::Table::Payloads, key).cloned();
                Event::Blobs { id, blobs: keys.iter().map(row).collect() }
            }
            Pending::Sealed { id, recipients, plaintext } => {
                Event::MapSealed { id, file: Some(seal_map(&recipients, &plaintext)) }
            }
            Pending::Opened { id, file } => {
                let own = format!("age1{}", target.name);
                Event::MapOpened { id, plaintext: open_map(&own, &file) }
            }
            Pending::Wake => {
                if let Some(running) = &mut target.running {
                    running.wake_at = None;
                }
                Event::Tick
            }
        };
        self.feed(machine, event);
    }

    /// Bytes arrive.
    pub fn deliver(&mut self, to: usize, from: TransportKey, bytes: &[u8]) {
        if let Some(all) = &mut self.overheard {
            all.push((to, from, bytes.to_vec()));
        }
        let Some(running) = self.machines.get(to).and_then(|machine| machine.running.as_ref()) else { return };
        let event = match decode_message(&running.host.mesh(), bytes) {
            Ok(message) => Event::Message { from, message: Box::new(message) },
            Err(error) => Event::Garbage { from, error },
        };
        self.feed(to, event);
    }

    fn mesh_of(&self, machine: usize) -> Option<spec::types::MeshId> {
        self.machines.get(machine)?.running.as_ref().map(|running| running.host.mesh())
    }

    /// News arrives: the host judges it before it goes on.
    pub fn hear(&mut self, machine: usize, from: &TransportKey, bytes: Vec<u8>) {
        let Some(mesh) = self.mesh_of(machine) else { return };
        let Some(running) = self.machines.get_mut(machine).and_then(|machine| machine.running.as_mut()) else { return };
        let message = decode_message(&mesh, &bytes).map(Box::new);
        if let Some(id) = running.gossip.arrived(from, bytes) {
            self.feed(machine, Event::Gossip { id, message });
        }
    }

    fn judge(&mut self, machine: usize, id: ActionId, verdict: Verdict) {
        self.note(machine, "judge", u64::from(verdict == Verdict::Accept), 0);
        match &mut self.judged {
            Some(all) => all.push((machine, verdict)),
            None if verdict == Verdict::Reject => {
                self.checkers.broken(format!("host {machine} rejects what honest hosts pass on"));
            }
            None => {}
        }
        self.spread(machine, Vec::new(), Some((id, verdict)));
    }

    /// Sends news to a few of those that a machine is connected to: its own, or what it judged.
    fn spread(&mut self, machine: usize, bytes: Vec<u8>, judged: Option<(ActionId, Verdict)>) {
        let near: Vec<TransportKey> = (0..self.machines.len())
            .filter(|other| *other != machine && self.connected.contains(&self.connection(machine, *other)))
            .filter_map(|other| self.machines.get(other).map(|other| other.transport))
            .collect();
        let Some(sender) = self.machines.get_mut(machine) else { return };
        let (from, Some(running)) = (sender.transport, sender.running.as_mut()) else { return };
        let (bytes, to) = match judged {
            Some((id, verdict)) => running.gossip.judged(id, verdict, &near, &mut self.random),
            None => {
                let to = running.gossip.publish(&bytes, &near, &mut self.random);
                (bytes, to)
            }
        };
        for to in to {
            let Some(target) = self.machines.iter().position(|machine| machine.transport == to) else { continue };
            self.messages += 1;
            self.note(machine, "news", 0, u64::try_from(target).unwrap_or(0));
            if !self.is_lost(machine, target) {
                let delay = self.random.between(self.scenario.delay_ms);
                self.schedule(delay, target, Pending::News { from, bytes: bytes.clone() });
            }
        }
    }

    fn set_circle(&mut self, machine: usize, members: Vec<TransportKey>, near: &[(TransportKey, Address)]) {
        for (key, address) in near {
            let Some(target) = self.machines.iter().position(|machine| machine.transport == *key) else { continue };
            let is_there = self.machines.get(target).is_some_and(|one| one.running.is_some() && one.name == address.0);
            if is_there && !self.is_lost(machine, target) {
                let connection = self.connection(machine, target);
                self.connected.insert(connection);
            }
        }
        if let Some(running) = self.machines.get_mut(machine).and_then(|machine| machine.running.as_mut()) {
            running.gossip.set_circle(members);
        }
    }

    /// Whether what one machine sends to another gets lost now.
    fn is_lost(&mut self, machine: usize, target: usize) -> bool {
        let dropped = self.faults && self.random.percent(self.scenario.loss_percent);
        dropped || self.cut_off.contains(&machine) != self.cut_off.contains(&target)
    }

    /// A write is durable: what waited for it is done.
    fn release(&mut self, machine: usize, lane: Lane) {
        let ready = self
            .machines
            .get_mut(machine)
            .and_then(|machine| machine.running.as_mut())
            .map(|running| running.lanes.persisted(lane))
            .unwrap_or_default();
        for action in ready {
            self.perform(machine, action);
        }
    }

    /// A machine's disk has so much room.
    pub fn has_room(&mut self, machine: usize, free: u64) {
        self.feed(machine, Event::Room { free });
    }

    fn feed(&mut self, machine: usize, event: Event) {
        let now = self.now(machine);
        let mut actions = Vec::new();
        let Some(running) = self.machines.get_mut(machine).and_then(|machine| machine.running.as_mut()) else { return };
        running.host.handle(now, event, &mut actions);
        let ready: Vec<Action> = actions.into_iter().filter_map(|action| running.lanes.push(action)).collect();
        let deadline = running.host.next_deadline(now);
        let wake = deadline.filter(|deadline| running.wake_at.is_none_or(|at| *deadline < at));
        if let Some(at) = wake {
            running.wake_at = Some(at);
            let after = at.0.saturating_sub(now.monotonic.0).max(1);
            self.schedule(after, machine, Pending::Wake);
        }
        for action in ready {
            self.perform(machine, action);
        }
    }

    fn perform(&mut self, machine: usize, action: Action) {
        if self.machines.get(machine).is_none_or(|machine| machine.running.is_none()) {
            return; // it crashed before an action of the same batch
        }
        self.performed += 1;
        if self.crash_before == Some(self.performed) {
            self.fallen = Some(machine);
            return self.crash(machine);
        }
        let delay = self.random.between(self.scenario.delay_ms);
        match action {
            Action::Persist { lane, writes } => self.persist(machine, lane, writes),
            Action::Confirm { id, .. } => self.schedule(0, machine, Pending::Confirmed { id }),
            Action::Send { to, address, message, .. } => self.send(machine, to, &address, &message, delay),
            Action::Publish { message } => {
                let Some(mesh) = self.mesh_of(machine) else { return };
                self.spread(machine, encode_message(&mesh, &message), None);
            }
            Action::Judge { id, verdict } => self.judge(machine, id, verdict),
            Action::Circle { members, near } => self.set_circle(machine, members, &near),
            Action::Tpm { id, request } => {
                self.note(machine, "tpm", 0, 0);
                let after = self.random.between(self.scenario.quote_ms);
                self.schedule(after, machine, Pending::Tpm { id, request });
            }
            Action::LoadBlobs { id, keys } => self.schedule(1, machine, Pending::Blobs { id, keys }),
            Action::SealMap { id, recipients, plaintext } => {
                self.schedule(1, machine, Pending::Sealed { id, recipients, plaintext });
            }
            Action::OpenMap { id, file } => self.schedule(1, machine, Pending::Opened { id, file }),
            Action::Reply { id, reply, .. } => {
                self.note(machine, "reply", u64::from(reply.is_ok()), 0);
                self.answers.push_back(Answer { id, reply });
            }
            Action::Disconnect { peer, why } => match &mut self.thrown_out {
                Some(all) => {
                    all.push((machine, why));
                    self.thrown_out_machines.extend(self.machines.iter().position(|other| other.transport == peer));
                }
                None => self.checkers.broken(format!("host {machine} threw out an honest peer: {why}")),
            },
            Action::Report(report) => {
                self.note(machine, "report", 0, 0);
                match report {
                    Report::Leads(term) => self.checkers.leads(machine, term),
                    Report::Doubted(record) if self.liar.is_none() => {
                        self.checkers.broken(format!("host {machine} doubts honest records up to {record}"));
                    }
                    // Who hears what somebody made up is right to say so.
                    Report::Split(round) if self.liar.is_none() && self.judged.is_none() => {
                        self.checkers.broken(format!("host {machine} calls the mesh split at {}", round.0));
                    }
                    Report::BadDeal(dealer, check) => self.name(machine, &dealer, check),
                    _ => {}
                }
            }
        }
    }

    /// A host says that a dealer lied.
    fn name(&mut self, machine: usize, dealer: &HostId, check: Check) {
        let running = self.machines.get(machine).and_then(|machine| machine.running.as_ref());
        let member = running.and_then(|running| running.host.records().member(dealer));
        let transport = member.map(|member| member.record().transport);
        let Some(dealer) = self.machines.iter().position(|machine| Some(machine.transport) == transport) else {
            return;
        };
        if self.liar.as_ref().is_none_or(|liar| liar.machine != dealer) {
            self.checkers.broken(format!("host {machine} says that host {dealer} dealt what does not hold: {check:?}"));
        }
        self.named.push((machine, dealer, check));
    }

    fn persist(&mut self, machine: usize, lane: Lane, writes: Vec<Write>) {
        self.note(machine, "persist", u64::try_from(writes.len()).unwrap_or(0), 0);
        for write in &writes {
            if let Some(value) = &write.value {
                self.checkers.on_disk(machine, write.table, &write.key, value);
            }
        }
        if self.hanging_disks.contains(&machine) {
            return;
        }
        let after = self.random.between(self.scenario.flush_ms);
        if self.acknowledges_before_flush {
            self.schedule(after, machine, Pending::Durable { writes });
            self.release(machine, lane);
        } else {
            self.schedule(after, machine, Pending::Persisted { lane, writes });
        }
    }

    fn send(&mut self, machine: usize, to: TransportKey, address: &Address, message: &Message, delay: u64) {
        let Some(sender) = self.machines.get(machine) else { return };
        match (&mut self.liar, &sender.running) {
            (Some(liar), Some(running)) if liar.machine == machine && sender.transport != to => {
                let running_hosts =
                    self.machines.iter().filter_map(|one| one.running.as_ref().map(|r| (one.transport, r)));
                let hosts = running_hosts.map(|(key, running)| (key, *running.host.host())).collect();
                let says = liar.says(&running.host.mesh(), &sender.transport_seed(), (to, &hosts), message);
                for said in says {
                    self.transmit(machine, to, address, &said, delay);
                }
            }
            _ => self.transmit(machine, to, address, message, delay),
        }
    }

    fn transmit(&mut self, machine: usize, to: TransportKey, address: &Address, message: &Message, delay: u64) {
        let Some(sender) = self.machines.get(machine) else { return };
        let from = sender.transport;
        let Some(mesh) = sender.running.as_ref().map(|running| running.host.mesh()) else { return };
        let bytes = encode_message(&mesh, message);
        let size = u64::try_from(bytes.len()).unwrap_or(0);
        let Some(target) = self.machines.iter().position(|machine| machine.transport == to) else { return };
        self.note(machine, message.name(), size, u64::try_from(target).unwrap_or(0));
        self.messages += 1;
        self.checkers.now_ms = self.now_ms;
        self.checkers.on_wire(machine, target, message, &bytes);
        if target == machine {
            return self.schedule(0, machine, Pending::Deliver { to: target, from, bytes });
        }
        if self.is_lost(machine, target) {
            return;
        }
        let down = self.machines.get(target).is_none_or(|machine| machine.running.is_none());
        // Who is not connected must know where the other is.
        let knows = self.machines.get(target).is_some_and(|machine| machine.name == address.0);
        let connection = self.connection(machine, target);
        let reaches = knows || self.connected.contains(&connection);
        if reaches && !down {
            self.connected.insert(connection);
        }
        if down || !reaches {
            self.schedule(delay, machine, Pending::Undeliverable { peer: to });
        } else {
            self.schedule(delay, machine, Pending::Deliver { to: target, from, bytes });
        }
    }

    /// A connection lasts as long as both ends run.
    fn connection(&self, one: usize, other: usize) -> [(usize, u64); 2] {
        let end = |at: usize| (at, self.machines.get(at).map_or(0, |machine| machine.incarnation));
        let mut ends = [end(one), end(other)];
        ends.sort_unstable();
        ends
    }

    fn note(&mut self, machine: usize, kind: &str, size: u64, peer: u64) {
        self.trace.update(self.now_ms.to_be_bytes());
        self.trace.update(u64::try_from(machine).unwrap_or(0).to_be_bytes());
        self.trace.update(kind.as_bytes());
        self.trace.update(size.to_be_bytes());
        self.trace.update(peer.to_be_bytes());
    }
}

/// Stands in for age: whoever is not a recipient does not open it.
fn seal_map(recipients: &[String], plaintext: &[u8]) -> Vec<u8> {
    let masked = plaintext.iter().map(|byte| byte ^ 0x5a);
    recipients.join(",").bytes().chain([0]).chain(masked).collect()
}

fn open_map(own: &str, file: &[u8]) -> Option<Vec<u8>> {
    let at = file.iter().position(|byte| *byte == 0)?;
    let recipients = std::str::from_utf8(file.get(..at)?).ok()?;
    let ours = recipients.split(',').any(|recipient| recipient == own);
    ours.then(|| file.iter().skip(at + 1).map(|byte| byte ^ 0x5a).collect())
}
