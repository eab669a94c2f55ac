//! The mesh key: shares of one BLS secret, commitments in G2, partial signatures in G1. Interpolation is vsss-rs's;
//! the traps of that library are closed here: the generator is ours, the degree is exactly t - 1, and whoever combines
//! checks the result against the mesh key.

use blstrs_plus::{G1Affine, G1Projective, G2Affine, G2Projective, Scalar};
use vsss_rs::{
    FeldmanVerifierSet, GroupShare, IdentifierPrimeField, ReadableShareSet as _, Share as _, ShareVerifierGroup,
    ValueGroup, feldman,
};

use super::sharing::{OneShare, scalar, share};
use crate::suite::{Generator, KeyDealt};
use crate::types::{BlsPublic, BlsSignature, SecretBytes, ShareIndex};

type Verifier = ShareVerifierGroup<G2Projective>;

/// Checks the curve and the subgroup.
fn point(public: &BlsPublic) -> Option<G2Projective> {
    G2Affine::from_compressed(&public.0).into_option().map(G2Projective::from)
}

fn identifier(index: ShareIndex) -> IdentifierPrimeField<Scalar> {
    IdentifierPrimeField(Scalar::from(u64::from(index.0)))
}

pub(super) fn deal(t: u8, n: u8, constant: Option<&SecretBytes>, generator: &mut Generator) -> Option<KeyDealt> {
    let secret = match constant {
        Some(constant) => scalar(constant)?,
        // 64 bytes taken modulo the group order: the bias is below 2^-128.
        None => Scalar::from_bytes_wide(generator.secret(64).expose().try_into().ok()?),
    };
    let (shares, verifiers) = feldman::split_secret::<OneShare, Verifier>(
        usize::from(t),
        usize::from(n),
        &IdentifierPrimeField(secret),
        None,
        generator,
    )
    .ok()?;
    let commitments = FeldmanVerifierSet::<OneShare, Verifier>::verifiers(&verifiers)
        .iter()
        .map(|verifier| BlsPublic(verifier.0.to_compressed()))
        .collect();
    let shares = shares.iter().map(|share| SecretBytes::copy_of(&share.value.0.to_be_bytes())).collect();
    Some(KeyDealt { secret: SecretBytes::copy_of(&secret.to_be_bytes()), commitments, shares })
}

pub(super) fn share_fits(t: u8, commitments: &[BlsPublic], index: ShareIndex, value: &SecretBytes) -> bool {
    if commitments.len() != usize::from(t) || index.0 == 0 {
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

pub(super) fn sum_shares(dealers: Option<&[ShareIndex]>, shares: &[&SecretBytes]) -> Option<SecretBytes> {
    let scalars = shares.iter().map(|share| scalar(share)).collect::<Option<Vec<_>>>()?;
    let sum = match dealers {
        None => scalars.into_iter().sum::<Scalar>(),
        Some(dealers) if dealers.len() == scalars.len() => {
            let set: Vec<OneShare> = dealers.iter().zip(scalars).map(|(dealer, value)| share(*dealer, value)).collect();
            set.combine().ok()?.0
        }
        Some(_) => return None,
    };
    Some(SecretBytes::copy_of(&sum.to_be_bytes()))
}

pub(super) fn sum_commitments(dealers: Option<&[ShareIndex]>, commitments: &[&[BlsPublic]]) -> Option<Vec<BlsPublic>> {
    let length = commitments.first()?.len();
    if commitments.iter().any(|one| one.len() != length) {
        return None;
    }
    let column = |at: usize| commitments.iter().map(|one| one.get(at).and_then(point)).collect::<Option<Vec<_>>>();
    let sum = |at: usize| {
        let points = column(at)?;
        let sum = match dealers {
            None => points.into_iter().sum::<G2Projective>(),
            Some(dealers) => interpolate(dealers, points)?,
        };
        Some(BlsPublic(sum.to_compressed()))
    };
    (0..length).map(sum).collect()
}

fn interpolate(dealers: &[ShareIndex], points: Vec<G2Projective>) -> Option<G2Projective> {
    if dealers.len() != points.len() {
        return None;
    }
    let set: Vec<GroupShare<G2Projective>> = dealers
        .iter()
        .zip(points)
        .map(|(dealer, point)| GroupShare::with_identifier_and_value(identifier(*dealer), ValueGroup(point)))
        .collect();
    Some(set.combine().ok()?.0)
}

/// The public key of one share: the commitments' polynomial at its index.
pub(super) fn public_of(commitments: &[BlsPublic], index: ShareIndex) -> Option<BlsPublic> {
    let at = Scalar::from(u64::from(index.0));
    let mut points = commitments.iter().rev().map(point);
    let first = points.next()??;
    let sum = points.try_fold(first, |sum, point| Some(sum * at + point?))?;
    Some(BlsPublic(sum.to_compressed()))
}

pub(super) fn combine(partials: &[(ShareIndex, BlsSignature)]) -> Option<BlsSignature> {
    let one = |(index, partial): &(ShareIndex, BlsSignature)| {
        let point = G1Affine::from_compressed(&partial.0).into_option().map(G1Projective::from)?;
        Some(GroupShare::with_identifier_and_value(identifier(*index), ValueGroup(point)))
    };
    let set = partials.iter().map(one).collect::<Option<Vec<_>>>()?;
    Some(BlsSignature(set.combine().ok()?.0.to_compressed()))
}
