//! The keys of a host: made once, in the chip and in one row of the store, and read back at each start.

use serde::{Deserialize, Serialize};
use spec::host::Identity;
use spec::types::SecretBytes;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::maps;
use crate::store::{Store, StoreError};
use crate::tpm::{ChipKeys, Tpm, TpmError};

/// Why a host has no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system gave no randomness.
    #[error("the operating system gives no randomness: {0}")]
    Randomness(String),
}

/// Secrets of the identity row.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    transport: Zeroizing<String>,
    vote: Zeroizing<String>,
    ak_auth: Zeroizing<String>,
    map_identity: Zeroizing<String>,
}

/// What a starting daemon needs to know of its keys.
pub struct Loaded {
    /// For the host.
    pub identity: Identity,
    /// Opens shard maps.
    pub map_identity: SecretBytes,
}

/// Loads the identity, or makes it in a new store. Afterwards the store is unlocked and the TPM quotes.
///
/// # Errors
/// Where the TPM or the store refuses.
pub async fn load(tpm: &Tpm, store: &mut Store) -> Result<Loaded, IdentityError> {
    let known = store.chip_keys()?;
    let chip: ChipKeys = match &known {
        Some(bytes) => serde_json::from_slice(bytes).map_err(|_| StoreError::Damaged)?,
        None => return make(tpm, store).await,
    };
    let opened = tpm.open(chip.clone()).await?;
    store.unlock(opened.store_key.duplicate());
    let row: Row = serde_json::from_slice(store.identity()?.expose()).map_err(|_| StoreError::Damaged)?;
    finish(tpm, chip, opened, &row).await
}

async fn make(tpm: &Tpm, store: &mut Store) -> Result<Loaded, IdentityError> {
    let (map_identity, _) = maps::fresh_identity();
    let row = Row {
        transport: fresh()?,
        vote: fresh_scalar()?,
        ak_auth: fresh()?,
        map_identity: Zeroizing::new(String::from_utf8_lossy(map_identity.expose()).into_owned()),
    };
    let chip = tpm.provision(bytes_of(&row.ak_auth)?).await?;
    let opened = tpm.open(chip.clone()).await?;
    store.unlock(opened.store_key.duplicate());
    let chip_bytes = serde_json::to_vec(&chip).map_err(|_| StoreError::Damaged)?;
    let row_bytes = SecretBytes::new(serde_json::to_vec(&row).map_err(|_| StoreError::Damaged)?);
    store.found(&chip_bytes, &row_bytes)?;
    finish(tpm, chip, opened, &row).await
}

async fn finish(tpm: &Tpm, chip: ChipKeys, opened: crate::tpm::Opened, row: &Row) -> Result<Loaded, IdentityError> {
    tpm.use_ak(bytes_of(&row.ak_auth)?).await?;
    let map_identity = SecretBytes::copy_of(row.map_identity.as_bytes());
    let identity = Identity {
        transport: bytes_of(&row.transport)?,
        vote: bytes_of(&row.vote)?,
        tpm_bound: opened.tpm_bound,
        eks: opened.eks,
        intermediates: Vec::new(),
        ak: chip.ak_public,
        map_recipient: maps::recipient_of(&map_identity).ok_or(StoreError::Damaged)?,
    };
    Ok(Loaded { identity, map_identity })
}

fn bytes_of(text: &str) -> Result<SecretBytes, StoreError> {
    hex::decode(text).map(SecretBytes::new).map_err(|_| StoreError::Damaged)
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, IdentityError> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut()).map_err(|error| IdentityError::Randomness(error.to_string()))?;
    Ok(bytes)
}

fn fresh() -> Result<Zeroizing<String>, IdentityError> {
    Ok(Zeroizing::new(hex::encode(random::<32>()?.as_ref())))
}

/// A secret key of the curve, from the suite's own generator.
fn fresh_scalar() -> Result<Zeroizing<String>, IdentityError> {
    use spec::suite::{Generator, Real, Seed, Suite as _};
    let mut generator = Generator::new(&Seed(random::<32>()?));
    Ok(Zeroizing::new(hex::encode(Real.bls_secret(&mut generator).expose())))
}
