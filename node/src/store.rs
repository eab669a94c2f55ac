//! The store: sled, made safe. The only place that names it.
//!
//! sled's `flush` does not reach the platter on Linux (it calls sync_file_range); what is larger than a quarter of a
//! segment, be it a value or a whole leaf of the tree, goes to files of its own that are never synced; and deleted
//! bytes stay in its log for long. So each commit ends with an fdatasync of the one file, values stay below 64 KiB and
//! segments are so large that no leaf leaves it, and every value but one is encrypted under a key that the TPM seals.
//! The one is what the TPM needs to unseal that key.

use std::fs::File;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use spec::host::{Saved, Table, Write};
use spec::limits::PIECE_BYTES;
use spec::suite::symmetric;
use spec::types::SecretBytes;
use thiserror::Error;

/// Layout of keys and values; another number is another store.
const LAYOUT: u8 = 1;
/// A leaf holds 16 values and what was written to them since: it must stay far below a quarter of a segment.
const VALUE_MAX: usize = 64 * 1024;
/// A quarter of it is what sled keeps in its one file.
const SEGMENT_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of writes after which a sync comes at the latest. sled uses a segment again as soon as what lived there was written
/// elsewhere, and takes that for durable: until the next sync it is not. So no more is written between two than half of
/// the one segment that it fills.
const UNSYNCED_MAX: usize = SEGMENT_BYTES / 2;
/// What sled may keep in memory.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
const NONCE_BYTES: usize = 12;
const CHECKSUM_BYTES: usize = 32;
const CHIP_KEYS: &[u8] = b"\0chip-keys";
const IDENTITY: &[u8] = b"\x01identity";

/// What went wrong with the store.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The disk.
    #[error("the store at {0}: {1}")]
    Disk(PathBuf, String),
    /// Another daemon uses it.
    #[error("another daemon runs on the store at {0}")]
    InUse(PathBuf),
    /// A value does not read back: damaged, or written under another key.
    #[error(
        "a value in the store does not read back: it is damaged, or belongs to another TPM. Move the folder `store` of the \
         daemon's state aside, start it again, and enrol it with a ticket that names this machine (invite --ek-hash)"
    )]
    Damaged,
    /// A value is too large for one row.
    #[error("a value of {0} bytes is too large for one row")]
    TooLarge(usize),
}

/// Key and value of a row.
type Row = (Vec<u8>, Vec<u8>);

/// The store of one host.
pub struct Store {
    db: sled::Db,
    file: File,
    folder: PathBuf,
    key: SecretBytes,
    /// Held as long as the store is open.
    _lock: File,
}

/// Why sled did not open.
enum Unopened {
    /// What is there is damaged.
    Damaged,
    /// The disk or its owner's rights.
    Disk(String),
}

/// Takes the lock beside the folder: two daemons on one store would each take the other's for damaged.
fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.with_extension("lock");
    let options = File::options().create(true).truncate(false).write(true).open(&path);
    let file = options.map_err(|error| disk(&path, &error))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse(folder.to_owned())),
        Err(error) => Err(disk(&path, &error)),
    }
}

/// Removes what sled began to write when it was last opened and did not finish, on a full disk or without power: it would
/// be read as damage, and is only a shorter way to what the store holds.
fn forget_unfinished(folder: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "generating") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

impl Store {
    /// Opens the store in this folder, or makes one. One that does not open is left as it is: to begin anew gives up this
    /// host's shares, and is a person's to decide.
    ///
    /// # Errors
    /// Where another daemon runs on this folder, the disk refuses, or what is there is damaged.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let lock = lock(folder)?;
        forget_unfinished(folder).map_err(|error| disk(folder, &error))?;
        match Self::open_at(folder) {
            Ok(db) => Self::opened_at(folder, db, lock),
            Err(Unopened::Disk(error)) => Err(disk(folder, &error)),
            Err(Unopened::Damaged) => Err(StoreError::Damaged),
        }
    }

    fn open_at(folder: &Path) -> Result<sled::Db, Unopened> {
        let config = sled::Config::new()
            .path(folder)
            .flush_every_ms(None)
            .cache_capacity(CACHE_BYTES)
            .segment_size(SEGMENT_BYTES);
        // sled panics on some damage where it could say so.
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => Ok(db),
            Ok(Err(sled::Error::Corruption { .. })) | Err(_) => Err(Unopened::Damaged),
            Ok(Err(error)) => Err(Unopened::Disk(error.to_string())),
        }
    }

    fn opened_at(folder: &Path, db: sled::Db, lock: File) -> Result<Self, StoreError> {
        db.flush().map_err(|error| disk(folder, &error))?;
        let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all().map(|()| file));
        let file = sync(&folder.join("db")).map_err(|error| disk(folder, &error))?;
        // The names of new files, and the folder's own.
        sync(folder).map_err(|error| disk(folder, &error))?;
        if let Some(parent) = folder.parent() {
            sync(parent).map_err(|error| disk(folder, &error))?;
        }
        Ok(Self { db, file, folder: folder.to_owned(), key: SecretBytes::default(), _lock: lock })
    }

    /// From now on values are read and written under this key.
    pub fn unlock(&mut self, key: SecretBytes) {
        self.key = key;
    }

    /// What the TPM needs to unseal the key of this store; `None` in a new store.
    ///
    /// # Errors
    /// Where it is damaged.
    pub fn chip_keys(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(value) = self.db.get(CHIP_KEYS).map_err(|error| disk(&self.folder, &error))? else { return Ok(None) };
        let (checksum, bytes) = value.split_at_checked(CHECKSUM_BYTES).ok_or(StoreError::Damaged)?;
        if Sha256::digest(bytes).as_slice() == checksum { Ok(Some(bytes.to_vec())) } else { Err(StoreError::Damaged) }
    }

    /// The identity row.
    ///
    /// # Errors
    /// Where it is missing or damaged.
    pub fn identity(&self) -> Result<SecretBytes, StoreError> {
        let value = self.db.get(IDENTITY).map_err(|error| disk(&self.folder, &error))?.ok_or(StoreError::Damaged)?;
        self.opened(IDENTITY, &value)
    }

    /// Writes what the TPM needs and the identity in one go: there is no moment with half a host.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn found(&self, chip_keys: &[u8], identity: &SecretBytes) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        let checksum = Sha256::digest(chip_keys);
        batch.insert(CHIP_KEYS, [checksum.as_slice(), chip_keys].concat());
        batch.insert(IDENTITY, self.sealed(IDENTITY, identity.expose())?);
        self.db.apply_batch(batch).map_err(|error| disk(&self.folder, &error))?;
        self.sync()
    }

    /// Everything that a starting host is given.
    ///
    /// # Errors
    /// Where a row is damaged.
    pub fn saved(&self) -> Result<Saved, StoreError> {
        Ok(Saved {
            membership: self.table(Table::Membership)?.into_iter().next(),
            records: self.table(Table::Records)?,
            state: self.rows(Table::State)?,
            raft: self.table(Table::Raft)?.into_iter().next(),
            forming: self.table(Table::Forming)?.into_iter().next(),
            keys: self.rows(Table::Keys)?,
            tickets: self.rows(Table::Tickets)?,
            epoch: self.rows(Table::Epoch)?,
            shares: self.table(Table::Shares)?,
        })
    }

    fn table(&self, table: Table) -> Result<Vec<Vec<u8>>, StoreError> {
        Ok(self.rows(table)?.into_iter().map(|(_, value)| value).collect())
    }

    fn rows(&self, table: Table) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::new();
        for row in self.db.scan_prefix([prefix(table)]) {
            let (key, value) = row.map_err(|error| disk(&self.folder, &error))?;
            let bare = key.get(1..).unwrap_or_default().to_vec();
            rows.push((bare, self.opened(&key, &value)?.expose().to_vec()));
        }
        Ok(rows)
    }

    /// Makes several groups of writes durable, each as a whole, with one sync for all, or a few where they are large.
    ///
    /// # Errors
    /// Where the disk fails: none of them may be acknowledged.
    pub fn commit(&self, groups: &[Vec<Write>]) -> Result<(), StoreError> {
        let mut unsynced = 0_usize;
        for writes in groups {
            let bytes: usize = writes.iter().map(bytes_of).sum();
            if unsynced > 0 && unsynced.saturating_add(bytes) > UNSYNCED_MAX {
                self.sync()?;
                unsynced = 0;
            }
            unsynced = unsynced.saturating_add(bytes);
            let mut batch = sled::Batch::default();
            for write in writes {
                let key = [&[prefix(write.table)], write.key.as_slice()].concat();
                match &write.value {
                    Some(value) => batch.insert(key.clone(), self.sealed(&key, value)?),
                    None => batch.remove(key),
                }
            }
            self.db.apply_batch(batch).map_err(|error| disk(&self.folder, &error))?;
        }
        self.sync()
    }

    /// Payload pieces; `None` where one is missing.
    ///
    /// # Errors
    /// Where one is damaged.
    pub fn blobs(&self, keys: &[Vec<u8>]) -> Result<Option<Vec<Vec<u8>>>, StoreError> {
        let mut blobs = Vec::new();
        for key in keys {
            let key = [&[prefix(Table::Payloads)], key.as_slice()].concat();
            match self.db.get(&key).map_err(|error| disk(&self.folder, &error))? {
                Some(value) => blobs.push(self.opened(&key, &value)?.expose().to_vec()),
                None => return Ok(None),
            }
        }
        Ok(Some(blobs))
    }

    /// Bytes that are free on its disk; `None` where the file system does not say.
    pub fn free(&self) -> Option<u64> {
        let found = rustix::fs::fstatvfs(&self.file).ok()?;
        found.f_bavail.checked_mul(found.f_frsize)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(|error| disk(&self.folder, &error))?;
        // Should a leaf have grown beyond a quarter of a segment after all: nothing in there is durable.
        let strays = std::fs::read_dir(self.folder.join("blobs")).map(|mut files| files.next().is_some());
        if strays.unwrap_or(false) {
            return Err(disk(&self.folder, &"sled wrote beside its file"));
        }
        self.file.sync_data().map_err(|error| disk(&self.folder, &error))
    }

    /// layout ‖ nonce ‖ AES-256-GCM, bound to its key so that rows cannot be swapped.
    fn sealed(&self, key: &[u8], value: &[u8]) -> Result<Vec<u8>, StoreError> {
        if value.len() > VALUE_MAX {
            return Err(StoreError::TooLarge(value.len()));
        }
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|error| disk(&self.folder, &error))?;
        let sealed = symmetric::seal(&self.key, nonce, key, value).ok_or(StoreError::Damaged)?;
        Ok([[LAYOUT].as_slice(), &nonce, &sealed].concat())
    }

    fn opened(&self, key: &[u8], value: &[u8]) -> Result<SecretBytes, StoreError> {
        let (layout, rest) = value.split_first().ok_or(StoreError::Damaged)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_BYTES).ok_or(StoreError::Damaged)?;
        let nonce = nonce.try_into().map_err(|_| StoreError::Damaged)?;
        if *layout != LAYOUT {
            return Err(StoreError::Damaged);
        }
        symmetric::open(&self.key, nonce, key, sealed).ok_or(StoreError::Damaged)
    }
}

fn disk(folder: &Path, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Disk(folder.to_owned(), error.to_string())
}

/// What a write may make sled write: up to three times what it holds, since the leaf around it is written anew after some.
/// So it is around a piece of a payload that goes.
fn bytes_of(write: &Write) -> usize {
    let gone = if write.table == Table::Payloads { PIECE_BYTES } else { 0 };
    let value = write.value.as_ref().map_or(gone, Vec::len);
    write.key.len().saturating_add(value).saturating_mul(3)
}

fn prefix(table: Table) -> u8 {
    match table {
        Table::Membership => 2,
        Table::Records => 3,
        Table::Epoch => 4,
        Table::Shares => 5,
        Table::Payloads => 6,
        Table::Raft => 7,
        Table::Forming => 8,
        Table::Keys => 9,
        Table::Tickets => 10,
        Table::State => 11,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SecretBytes {
        SecretBytes::copy_of(&[byte; 32])
    }

    fn write(key: &[u8], value: Option<&[u8]>) -> Write {
        Write { table: Table::Records, key: key.to_vec(), value: value.map(<[u8]>::to_vec) }
    }

    fn store(folder: &Path, byte: u8) -> Store {
        // The library lets go of its lock a moment after the last handle is dropped.
        let patience = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let mut store = loop {
            match Store::open(folder) {
                Err(_) if std::time::Instant::now() < patience => {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                opened => break opened.unwrap(),
            }
        };
        store.unlock(key(byte));
        store
    }

    #[test]
    fn rows_come_back_in_order_and_removed_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        {
            let store = store(&path, 1);
            store.found(b"chip", &key(7)).unwrap();
            let rows = vec![write(b"b", Some(b"two")), write(b"a", Some(b"one")), write(b"c", Some(b"three"))];
            store.commit(&[rows, vec![write(b"c", None)]]).unwrap();
        }
        let store = store(&path, 1);
        assert_eq!(store.saved().unwrap().records, [b"one".to_vec(), b"two".to_vec()]);
        assert_eq!(store.chip_keys().unwrap().unwrap(), b"chip");
        assert_eq!(store.identity().unwrap().expose(), key(7).expose());
    }

    #[test]
    fn another_key_reads_nothing_and_nothing_lies_in_clear() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        store(&path, 1).commit(&[vec![write(b"a", Some(b"a value in clear"))]]).unwrap();
        assert!(matches!(store(&path, 2).saved(), Err(StoreError::Damaged)));
        let mut found = false;
        for file in std::fs::read_dir(&path).unwrap() {
            let file = file.unwrap().path();
            if file.is_file() {
                let bytes = std::fs::read(&file).unwrap();
                found |= bytes.windows(8).any(|window| window == b"a value ");
            }
        }
        assert!(!found);
    }

    #[test]
    fn a_row_too_large_for_sled_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder.path().join("store"), 1);
        let large = vec![0; VALUE_MAX + 1];
        assert!(matches!(store.commit(&[vec![write(b"a", Some(&large))]]), Err(StoreError::TooLarge(_))));
    }

    #[test]
    fn the_largest_payload_lies_in_the_one_file_that_is_synced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let store = store(&path, 1);
        for put in 0..3_u8 {
            let piece = |number: u8| Write {
                table: Table::Payloads,
                key: [[put; 64].as_slice(), &[0, number]].concat(),
                value: Some(vec![number; 32 * 1024 + 16]),
            };
            store.commit(&[(0..32).map(piece).collect()]).unwrap();
        }
        let strays = std::fs::read_dir(path.join("blobs")).map_or(0, Iterator::count);
        assert_eq!(strays, 0);
    }

    #[test]
    fn a_second_daemon_is_refused_and_moves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let first = store(&path, 1);
        assert!(matches!(Store::open(&path), Err(StoreError::InUse(_))));
        first.found(b"chip", &key(7)).unwrap();
        drop(first);
        assert!(Store::open(&path).unwrap().chip_keys().unwrap().is_some());
    }

    #[test]
    fn a_store_that_is_damaged_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        store(&path, 1).found(b"chip", &key(7)).unwrap();
        let conf = std::fs::read(path.join("conf")).unwrap();
        std::fs::write(path.join("conf"), b"no configuration of sled").unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::Damaged)));
        std::fs::write(path.join("conf"), conf).unwrap();
        assert_eq!(store(&path, 1).chip_keys().unwrap().as_deref(), Some(b"chip".as_slice()));
    }

    #[test]
    fn what_a_full_disk_left_of_a_start_is_no_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        store(&path, 1).found(b"chip", &key(7)).unwrap();
        for content in [b"".as_slice(), b"half a snapshot of sled"] {
            std::fs::write(path.join("snap.FFFFFFFFFFFFFFFF.generating"), content).unwrap();
            assert_eq!(store(&path, 1).chip_keys().unwrap().as_deref(), Some(b"chip".as_slice()));
        }
    }
}
