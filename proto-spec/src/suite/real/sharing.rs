//! Feldman sharing of one scalar over G1, by vsss-rs, with the traps of that library closed: the generator is
//! ours and never the dealer's, the degree is exactly k - 1, and a combined secret is checked against C_0.

use blstrs_plus::{G1Affine, G1Projective, Scalar};
use vsss_rs::{
    FeldmanVerifierSet, IdentifierPrimeField, PrimeFieldShare, ReadableShareSet as _, Share as _, ShareVerifierGroup,
    ValuePrimeField, feldman,
};

use crate::suite::{Dealt, Generator};
use crate::types::{Commitment, SecretBytes, ShareIndex, Terms};

pub(super) type OneShare = PrimeFieldShare<Scalar>;
type Verifier = ShareVerifierGroup<G1Projective>;

pub(super) fn scalar(bytes: &SecretBytes) -> Option<Scalar> {
    Scalar::from_be_bytes(bytes.expose().try_into().ok()?).into_option()
}

fn point(commitment: &Commitment) -> Option<G1Projective> {
    // Checks the curve and the subgroup.
    G1Affine::from_compressed(&commitment.0).into_option().map(G1Projective::from)
}

pub(super) fn share(index: ShareIndex, value: Scalar) -> OneShare {
    OneShare::with_identifier_and_value(
        IdentifierPrimeField(Scalar::from(u64::from(index.0))),
        ValuePrimeField::from(IdentifierPrimeField(value)),
    )
}

pub(super) fn deal(terms: Terms, generator: &mut Generator) -> Option<Dealt> {
    if !terms.are_sound() {
        return None;
    }
    // 48 bytes taken modulo the group order: the bias is below 2^-128.
    let wide = generator.secret(64);
    let secret = Scalar::from_bytes_wide(wide.expose().try_into().ok()?);
    let (shares, verifiers) = feldman::split_secret::<OneShare, Verifier>(
        usize::from(terms.k),
        usize::from(terms.n),
        &IdentifierPrimeField(secret),
        None,
        generator,
    )
    .ok()?;
    let commitments = FeldmanVerifierSet::<OneShare, Verifier>::verifiers(&verifiers)
        .iter()
        .map(|v| Commitment(v.0.to_compressed()))
        .collect();
    let shares = shares.iter().map(|s| SecretBytes::copy_of(&s.value.0.to_be_bytes())).collect();
    Some(Dealt { secret: SecretBytes::copy_of(&secret.to_be_bytes()), commitments, shares })
}

pub(super) fn share_fits(k: u8, commitments: &[Commitment], index: ShareIndex, value: &SecretBytes) -> bool {
    if commitments.len() != usize::from(k) || index.0 == 0 {
        return false;
    }
    let Some(value) = scalar(value) else { return false };
    let mut verifiers = vec![Verifier::generator()];
    for commitment in commitments {
        match point(commitment) {
            Some(point) => verifiers.push(point.into()),
            None => return false,
        }
    }
    FeldmanVerifierSet::<OneShare, Verifier>::verify_share(&verifiers, &share(index, value)).is_ok()
}

pub(super) fn combine(k: u8, shares: &[(ShareIndex, &SecretBytes)], c0: &Commitment) -> Option<SecretBytes> {
    if shares.len() < usize::from(k) {
        return None;
    }
    let shares = shares
        .iter()
        .take(usize::from(k))
        .map(|(index, value)| scalar(value).map(|value| share(*index, value)))
        .collect::<Option<Vec<_>>>()?;
    let secret = shares.combine().ok()?.0;
    let fits = (G1Projective::GENERATOR * secret).to_compressed() == c0.0;
    fits.then(|| SecretBytes::copy_of(&secret.to_be_bytes()))
}
