//! The only place where `Host` is driven: events in, actions out, in order. No protocol number and no protocol `if`
//! stands here; what an action means is decided by `Host`, how it is done by the part that it goes to.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use spec::error::{DecodeError, Failure};
use spec::host::{Action, ActionId, Actions, Event, Host, Lanes, LocalCommand, LocalId, LocalReply, TpmReply};
use spec::types::{SecretBytes, TransportKey};
use spec::wire::{decode_message, encode_message};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::api::places::Place;
use crate::network::{Arrival, Ends, Order};
use crate::reports::Reports;
use crate::tpm::{Tpm, TpmError};
use crate::workers::{Disk, Done, Job};
use crate::{clock, maps};

/// Longest sleep: the wall clock may be set at any time, and rounds follow it.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// A disk that has jobs and ends none in this time hangs: a new process may find it well again, and the others go on
/// without this host meanwhile.
const DISK_SILENT: Duration = Duration::from_secs(60);

/// Questions without any answer after which the TPM's owner thread is given up.
const WEDGED_MAX: u32 = 3;

/// The daemon cannot go on.
#[derive(Debug, Error)]
pub enum DriverError {
    /// A write failed. Nothing behind it was acknowledged; a restart begins from what is on disk.
    #[error("a write to disk failed; nothing behind it was acknowledged")]
    Disk,
    /// Writes neither end nor fail.
    #[error("the disk does not answer; nothing behind what it was given was acknowledged")]
    DiskSilent,
    /// A part of the daemon ended.
    #[error("the {0} ended")]
    Ended(&'static str),
}

/// A request from the local socket and where its answer goes.
pub struct LocalRequest {
    /// The request.
    pub command: LocalCommand,
    /// Takes the answer.
    pub answer: Answer,
    /// The place of whoever asked, which stays taken until there is an answer, though nobody wait for it any more; none
    /// where the daemon itself asks.
    pub(crate) place: Option<Place>,
}

/// Where an answer goes.
pub type Answer = oneshot::Sender<Result<LocalReply, Failure>>;

/// Answers of parts that work beside the driver.
enum Finished {
    Tpm(ActionId, Result<TpmReply, TpmError>),
    Sealed(ActionId, Option<Vec<u8>>),
    Opened(ActionId, Option<Vec<u8>>),
}

/// The driver.
pub struct Driver {
    host: Host,
    lanes: Lanes,
    network: Ends,
    disk: Disk,
    done: mpsc::UnboundedReceiver<Done>,
    /// Jobs that the disk has, and since when none of them ended.
    disk_jobs: (usize, Instant),
    /// When that was looked at last.
    looked: Instant,
    tpm: Tpm,
    map_identity: SecretBytes,
    finished: (mpsc::UnboundedSender<Finished>, mpsc::UnboundedReceiver<Finished>),
    locals: mpsc::Receiver<LocalRequest>,
    answers: BTreeMap<LocalId, (Answer, Option<Place>)>,
    next_local: u64,
    /// Questions in a row that the TPM left without any answer.
    wedged: u32,
    reports: Reports,
    /// Events that this host made for itself: messages to its own key, and what could not be handed on.
    own: VecDeque<Event>,
}

impl Driver {
    /// Puts the parts together.
    pub fn new(
        host: Host,
        network: Ends,
        disk: (Disk, mpsc::UnboundedReceiver<Done>),
        tpm: Tpm,
        map_identity: SecretBytes,
        locals: mpsc::Receiver<LocalRequest>,
    ) -> Self {
        Self {
            host,
            lanes: Lanes::default(),
            network,
            disk: disk.0,
            done: disk.1,
            disk_jobs: (0, Instant::now()),
            looked: Instant::now(),
            tpm,
            map_identity,
            finished: mpsc::unbounded_channel(),
            locals,
            answers: BTreeMap::new(),
            next_local: 0,
            wedged: 0,
            reports: Reports::default(),
            own: VecDeque::new(),
        }
    }

    /// Runs until something fails for good.
    ///
    /// # Errors
    /// What failed.
    pub async fn run(mut self) -> Result<(), DriverError> {
        self.feed(Event::Tick)?;
        loop {
            while let Some(event) = self.own.pop_front() {
                self.feed(event)?;
            }
            self.watch_disk()?;
            let sleep = self.sleep();
            tokio::select! {
                done = self.done.recv() => self.disk_did(done.ok_or(DriverError::Ended("store"))?)?,
                finished = self.finished.1.recv() => match finished.ok_or(DriverError::Ended("driver"))? {
                    Finished::Tpm(id, reply) => {
                        let reply = self.judged(reply)?;
                        self.feed(Event::Tpm { id, reply })?;
                    }
                    Finished::Sealed(id, file) => self.feed(Event::MapSealed { id, file })?,
                    Finished::Opened(id, plaintext) => self.feed(Event::MapOpened { id, plaintext })?,
                },
                arrival = self.network.arrivals.recv() => {
                    let event = self.event_of(arrival.ok_or(DriverError::Ended("network"))?);
                    self.feed(event)?;
                }
                request = self.locals.recv() => {
                    let LocalRequest { command, answer, place } = request.ok_or(DriverError::Ended("local socket"))?;
                    self.next_local += 1;
                    let id = LocalId(self.next_local);
                    self.answers.insert(id, (answer, place));
                    self.feed(Event::Command { id, command: Box::new(command) })?;
                }
                () = tokio::time::sleep(sleep) => self.feed(Event::Tick)?,
            }
        }
    }

    /// Where this loop itself was held up, as by a freezer, the disk was too.
    fn watch_disk(&mut self) -> Result<(), DriverError> {
        let now = Instant::now();
        let was_held_up = now.duration_since(std::mem::replace(&mut self.looked, now)) > DISK_SILENT / 4;
        let (jobs, since) = &mut self.disk_jobs;
        if was_held_up {
            *since = now;
        }
        if *jobs > 0 && now.duration_since(*since) > DISK_SILENT { Err(DriverError::DiskSilent) } else { Ok(()) }
    }

    fn hand_to_disk(&mut self, job: Job) -> Result<(), Job> {
        self.disk.hand(job)?;
        let (jobs, since) = self.disk_jobs;
        self.disk_jobs = (jobs + 1, if jobs == 0 { Instant::now() } else { since });
        Ok(())
    }

    fn disk_did(&mut self, done: Done) -> Result<(), DriverError> {
        if !matches!(done, Done::Room(_)) {
            self.disk_jobs = (self.disk_jobs.0.saturating_sub(1), Instant::now());
        }
        match done {
            Done::Persisted(lane) => self.lanes.persisted(lane).into_iter().try_for_each(|action| self.perform(action)),
            Done::PersistFailed(lane) => {
                self.lanes.failed(lane);
                self.feed(Event::PersistFailed { lane })?;
                Err(DriverError::Disk)
            }
            Done::Blobs(id, blobs) => self.feed(Event::Blobs { id, blobs }),
            Done::Room(free) => self.feed(Event::Room { free }),
        }
    }

    /// A chip that refuses is tried again; one that does not even answer, several times in a row, has wedged its owner
    /// thread for good, and only a new process gets another.
    fn judged(&mut self, reply: Result<TpmReply, TpmError>) -> Result<Option<TpmReply>, DriverError> {
        match reply {
            Ok(reply) => {
                self.wedged = 0;
                Ok(Some(reply))
            }
            Err(error) => {
                tracing::warn!(%error, "the TPM did not do what was asked");
                self.wedged = if matches!(error, TpmError::Wedged) { self.wedged + 1 } else { 0 };
                if self.wedged >= WEDGED_MAX { Err(DriverError::Ended("TPM")) } else { Ok(None) }
            }
        }
    }

    fn sleep(&self) -> Duration {
        let now = clock::now();
        let until = self.host.next_deadline(now).map(|at| at.0.saturating_sub(now.monotonic.0).max(1));
        until.map_or(SLEEP_MAX, Duration::from_millis).min(SLEEP_MAX)
    }

    fn event_of(&self, arrival: Arrival) -> Event {
        match arrival {
            Arrival::Bytes(from, bytes) if bytes.len() > self.host.message_max(&from) => {
                let error = DecodeError::TooLong { got: bytes.len(), max: self.host.message_max(&from) };
                Event::Garbage { from, error }
            }
            Arrival::Bytes(from, bytes) => match decode_message(&self.host.mesh(), &bytes) {
                Ok(message) => Event::Message { from, message: Box::new(message) },
                Err(error) => Event::Garbage { from, error },
            },
            Arrival::News(name, bytes) => {
                let message = decode_message(&self.host.mesh(), &bytes).map(Box::new);
                Event::Gossip { id: ActionId(name), message }
            }
            Arrival::Garbage(from, error) => Event::Garbage { from, error },
            Arrival::Undeliverable(to) => Event::Undeliverable { to },
        }
    }

    fn feed(&mut self, event: Event) -> Result<(), DriverError> {
        let mut actions = Actions::new();
        self.host.handle(clock::now(), event, &mut actions);
        for action in actions {
            if let Some(action) = self.lanes.push(action) {
                self.perform(action)?;
            }
        }
        Ok(())
    }

    fn perform(&mut self, action: Action) -> Result<(), DriverError> {
        match action {
            Action::Persist { lane, writes } => {
                self.hand_to_disk(Job::Commit(lane, writes)).map_err(|_| DriverError::Disk)?;
            }
            // In its turn in the lane: all that was to be written before it is durable.
            Action::Confirm { id, .. } => self.own.push_back(Event::Persisted { id }),
            Action::LoadBlobs { id, keys } => {
                if self.hand_to_disk(Job::Blobs(id, keys)).is_err() {
                    self.own.push_back(Event::Blobs { id, blobs: None });
                }
            }
            Action::Send { to, address, message, .. } => {
                let bytes = encode_message(&self.host.mesh(), &message);
                self.send(to, Order::Send { to, address, bytes });
            }
            // News that is not handed on is made up for: whoever misses it pulls.
            Action::Publish { message } => {
                let order = Order::Publish(encode_message(&self.host.mesh(), &message));
                drop(self.network.orders.try_send(order));
            }
            Action::Judge { id, verdict } => drop(self.network.orders.try_send(Order::Judge(id.0, verdict))),
            Action::Circle { members, near } => {
                drop(self.network.orders.try_send(Order::Circle(members, near)));
            }
            Action::Disconnect { peer, why } => {
                self.reports.thrown_out(&peer, &why);
                self.send(peer, Order::Disconnect(peer));
            }
            Action::Tpm { id, request } => {
                let (tpm, finished) = (self.tpm.clone(), self.finished.0.clone());
                tokio::spawn(async move {
                    let reply = tpm.ask(request).await;
                    drop(finished.send(Finished::Tpm(id, reply)));
                });
            }
            Action::SealMap { id, recipients, plaintext } => {
                let finished = self.finished.0.clone();
                tokio::task::spawn_blocking(move || {
                    drop(finished.send(Finished::Sealed(id, maps::seal(&recipients, &plaintext))));
                });
            }
            Action::OpenMap { id, file } => {
                let (identity, finished) = (self.map_identity.duplicate(), self.finished.0.clone());
                tokio::task::spawn_blocking(move || {
                    drop(finished.send(Finished::Opened(id, maps::open(&identity, &file))));
                });
            }
            Action::Reply { id, reply, .. } => {
                if let Some((answer, _place)) = self.answers.remove(&id) {
                    drop(answer.send(reply)); // a client that went away does not hear it
                }
            }
            Action::Report(report) => self.reports.log(&report),
        }
        Ok(())
    }

    /// Hands an order to the network; a message to this host's own key comes straight back.
    fn send(&mut self, to: TransportKey, order: Order) {
        match order {
            Order::Send { to, bytes, .. } if to == *self.host.transport() => {
                let event = self.event_of(Arrival::Bytes(to, bytes.into()));
                self.own.push_back(event);
            }
            order => {
                if self.network.orders.try_send(order).is_err() {
                    self.own.push_back(Event::Undeliverable { to });
                }
            }
        }
    }
}
