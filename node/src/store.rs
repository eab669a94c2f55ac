//! The store: sled, made safe. The only place that names it.
//!
//! sled's `flush` does not reach the platter on Linux (it calls sync_file_range), values beyond 128 KB bypass it
//! altogether, and deleted bytes stay in its log for long. So each commit ends with an fdatasync of its file, values
//! stay below 64 KiB, and every value but one is encrypted under a key that the TPM seals. The one is what the TPM
//! needs to unseal that key.

use std::fs::File;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use spec::host::{Saved, Table, Write};
use spec::suite::symmetric;
use spec::types::SecretBytes;
use thiserror::Error;

/// Layout of keys and values; another number is another store.
const LAYOUT: u8 = 1;
/// sled keeps larger values in files that it never syncs.
const VALUE_MAX: usize = 64 * 1024;
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
    /// A value does not read back: damaged, or written under another key.
    #[error("a value in the store does not read back; it is damaged or belongs to another TPM")]
    Damaged,
    /// A value is too large for one row.
    #[error("a value of {0} bytes is too large for one row")]
    TooLarge(usize),
}

/// The store of one host.
pub struct Store {
    db: sled::Db,
    file: File,
    folder: PathBuf,
    key: SecretBytes,
}

impl Store {
    /// Opens the store in this folder, or makes one. One that does not open is set aside, never opened again and
    /// again: the host then begins anew and is repaired by the others.
    ///
    /// # Errors
    /// Where the folder cannot be used at all.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        match Self::open_at(folder) {
            Ok(store) => Ok(store),
            Err(error) if folder.exists() => {
                let aside = folder.with_extension(format!("damaged-{}", crate::clock::now().wall_ms));
                tracing::error!(%error, aside = %aside.display(), "the store does not open: it is set aside");
                std::fs::rename(folder, &aside).map_err(|error| disk(folder, &error))?;
                Self::open_at(folder)
            }
            Err(error) => Err(error),
        }
    }

    fn open_at(folder: &Path) -> Result<Self, StoreError> {
        let db = sled::Config::new()
            .path(folder)
            .flush_every_ms(None)
            .cache_capacity(16 * 1024 * 1024)
            .open()
            .map_err(|error| disk(folder, &error))?;
        db.flush().map_err(|error| disk(folder, &error))?;
        let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all().map(|()| file));
        let file = sync(&folder.join("db")).map_err(|error| disk(folder, &error))?;
        // The names of new files, and the folder's own.
        sync(folder).map_err(|error| disk(folder, &error))?;
        if let Some(parent) = folder.parent() {
            sync(parent).map_err(|error| disk(folder, &error))?;
        }
        Ok(Self { db, file, folder: folder.to_owned(), key: SecretBytes::default() })
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
            epoch: self.table(Table::Epoch)?.into_iter().next(),
            shares: self.table(Table::Shares)?,
        })
    }

    fn table(&self, table: Table) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut rows = Vec::new();
        for row in self.db.scan_prefix([prefix(table)]) {
            let (key, value) = row.map_err(|error| disk(&self.folder, &error))?;
            rows.push(self.opened(&key, &value)?.expose().to_vec());
        }
        Ok(rows)
    }

    /// Makes several groups of writes durable, each as a whole, with one sync for all.
    ///
    /// # Errors
    /// Where the disk fails: none of them may be acknowledged.
    pub fn commit(&self, groups: &[Vec<Write>]) -> Result<(), StoreError> {
        for writes in groups {
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

    fn sync(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(|error| disk(&self.folder, &error))?;
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

fn prefix(table: Table) -> u8 {
    match table {
        Table::Membership => 2,
        Table::Records => 3,
        Table::Epoch => 4,
        Table::Shares => 5,
        Table::Payloads => 6,
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
        let mut store = Store::open(folder).unwrap();
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
    fn a_store_that_does_not_open_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        store(&path, 1).found(b"chip", &key(7)).unwrap();
        std::fs::write(path.join("conf"), b"no configuration of sled").unwrap();
        let store = store(&path, 1);
        assert!(store.chip_keys().unwrap().is_none());
        let aside = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(aside, 2);
    }
}
