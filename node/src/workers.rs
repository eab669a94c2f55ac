//! The store's thread: writes in the order in which they came, as many as wait with one sync.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use spec::host::{ActionId, Lane, Write};
use tokio::sync::mpsc;

use crate::store::Store;

/// Jobs that may wait for the disk.
const QUEUE: usize = 4096;
/// Writes that share one sync.
const TOGETHER: usize = 128;

/// How often the disk is asked how much room it has, at most.
const LOOK: Duration = Duration::from_secs(1);

/// A job for the disk.
#[derive(Debug)]
pub enum Job {
    /// Make these writes durable.
    Commit(Lane, Vec<Write>),
    /// Read these blobs.
    Blobs(ActionId, Vec<Vec<u8>>),
}

/// What became of it.
#[derive(Debug)]
pub enum Done {
    /// They are durable.
    Persisted(Lane),
    /// They are not.
    PersistFailed(Lane),
    /// The blobs.
    Blobs(ActionId, Option<Vec<Vec<u8>>>),
    /// So many bytes are free on the disk.
    Room(u64),
}

/// The way to the store's thread.
pub struct Disk {
    jobs: SyncSender<Job>,
}

impl Disk {
    /// Starts the thread; what becomes of each job goes to `done`, in order.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start(store: Store, done: mpsc::UnboundedSender<Done>) -> std::io::Result<Self> {
        let (jobs, receiver) = sync_channel(QUEUE);
        thread::Builder::new().name("store".to_owned()).spawn(move || work(&store, &receiver, &done))?;
        Ok(Self { jobs })
    }

    /// Hands a job over; gives it back where the disk is too far behind.
    ///
    /// # Errors
    /// The job itself.
    pub fn hand(&self, job: Job) -> Result<(), Job> {
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
        })
    }
}

fn work(store: &Store, jobs: &Receiver<Job>, done: &mpsc::UnboundedSender<Done>) {
    let mut looked = None;
    while let Ok(first) = jobs.recv() {
        let mut lanes = Vec::new();
        let mut groups = Vec::new();
        let mut reads = Vec::new();
        for job in std::iter::once(first).chain(jobs.try_iter()) {
            match job {
                Job::Commit(lane, writes) => {
                    lanes.push(lane);
                    groups.push(writes);
                }
                Job::Blobs(id, keys) => reads.push((id, keys)),
            }
            if lanes.len() + reads.len() >= TOGETHER {
                break;
            }
        }
        let written = if groups.is_empty() { Ok(()) } else { store.commit(&groups) };
        let result = |lane| match &written {
            Ok(()) => Done::Persisted(lane),
            Err(error) => {
                tracing::error!(%error, "a write failed");
                Done::PersistFailed(lane)
            }
        };
        let mut news: Vec<Done> = lanes.into_iter().map(result).collect();
        for (id, keys) in reads {
            let blobs = store.blobs(&keys).unwrap_or_else(|error| {
                tracing::error!(%error, "a payload does not read back");
                None
            });
            news.push(Done::Blobs(id, blobs));
        }
        // Each round is written down: where nobody writes, nothing fills up either.
        if looked.is_none_or(|looked: Instant| looked.elapsed() > LOOK) {
            looked = Some(Instant::now());
            news.extend(store.free().map(Done::Room));
        }
        for one in news {
            if done.send(one).is_err() {
                return;
            }
        }
    }
}
