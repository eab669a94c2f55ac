//! The one source of randomness of a host: seeded at each start, never shared.

use std::convert::Infallible;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _, TryCryptoRng, TryRng};
use zeroize::Zeroizing;

use crate::types::SecretBytes;

/// 32 bytes from the operating system (in a simulation: from the run's seed).
pub struct Seed(pub Zeroizing<[u8; 32]>);

/// A ChaCha20 generator.
pub struct Generator(ChaCha20Rng);

impl Generator {
    /// Starts the stream of this seed.
    pub fn new(seed: &Seed) -> Self {
        Self(ChaCha20Rng::from_seed(*seed.0))
    }

    /// Fresh random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// Fresh secret bytes.
    pub fn secret(&mut self, length: usize) -> SecretBytes {
        let mut bytes = vec![0; length];
        self.0.fill_bytes(&mut bytes);
        SecretBytes::new(bytes)
    }
}

impl TryRng for Generator {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, destination: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill_bytes(destination);
        Ok(())
    }
}

impl TryCryptoRng for Generator {}
