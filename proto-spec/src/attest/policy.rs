//! Which measurements are good. In this step: the values at enrolment, over the PCRs that the genesis selects.

use std::collections::BTreeMap;

use super::quote::QuoteVerified;
use crate::error::Check;
use crate::types::Digest;

/// PCRs over which a machine's measurements at enrolment are good: firmware and its configuration (0 to 7), the
/// unified kernel image (11) and the machine owner's keys (14). PCR 8 to 10 move with every kernel and command line.
pub const DEFAULT_PCRS: [u8; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 11, 14];

/// Compares a quote with the values that are good for its machine.
///
/// # Errors
/// [`Check::Pcr`] names the first PCR that is missing or differs.
pub fn appraise(quote: &QuoteVerified, good: &BTreeMap<u8, Digest>) -> Result<(), Check> {
    match good.iter().find(|(number, value)| quote.pcrs().get(number) != Some(value)) {
        Some((number, _)) => Err(Check::Pcr(*number)),
        None => Ok(()),
    }
}
