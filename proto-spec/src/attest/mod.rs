//! Attestation: what a TPM says, checked in software (RFC 9334: the verifier's part).

pub mod chain;
pub mod enroll;
pub mod evidence;
pub mod policy;
pub mod quote;
pub mod tpm;
