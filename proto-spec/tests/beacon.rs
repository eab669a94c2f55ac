//! Other people's verifiers take our beacon: the crate `drand-verify`, for the scheme of drand's quicknet.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use drand_verify::{G2PubkeyRfc, Pubkey as _};
use spec::beacon::{EpochVerified, SignedBeacon};
use spec::signing::{Memory, Signable};
use spec::suite::{Generator, MeshKey, Real, Seed, Suite as _};
use spec::types::{MeshId, Round, ShareIndex};

#[test]
fn a_beacon_that_three_of_five_signed_is_one_of_drands() {
    let dealt = Real.key_deal(3, 5, None, &mut Generator::new(&Seed([3; 32].into()))).expect("a deal");
    let key = dealt.commitments[0];
    let drand = G2PubkeyRfc::from_fixed(key.0).expect("a key of drand's");
    for round in [1, 2, 4_294_967_296] {
        let partial = |index: u8| {
            let share = &dealt.shares[usize::from(index) - 1];
            let part = Signable::Beacon(Round(round)).partial(&Real, &MeshId::ZERO, share, Memory::default());
            (ShareIndex(index), part.expect("a part"))
        };
        let signature = Real.bls_combine(&[partial(1), partial(3), partial(4)]).expect("a beacon");
        let beacon = SignedBeacon { round: Round(round), signature };
        assert!(EpochVerified::check(&Real, &MeshKey::pinned(key), &beacon).is_some());
        assert!(drand.verify(round, b"", &signature.0).expect("a point"));
        assert_eq!(drand_verify::derive_randomness(&signature.0), beacon.beacon().0);
        assert!(!drand.verify(round + 1, b"", &signature.0).expect("a point"), "another round");
        for bit in 0..384 {
            let mut flipped = signature.0;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!drand.verify(round, b"", &flipped).unwrap_or(false), "bit {bit} is flipped");
        }
    }
}

/// Quicknet's own beacon of round 1000, as the League of Entropy publishes it, under its own key.
#[test]
fn a_beacon_of_drands_quicknet_is_one_of_ours() {
    let bytes = |text: &str| hex::decode(text).expect("hex");
    let key = "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d1064510d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a";
    let signature = "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39";
    let key = spec::types::BlsPublic::from_slice(&bytes(key)).expect("a key");
    let signature = spec::types::BlsSignature::from_slice(&bytes(signature)).expect("a signature");
    let beacon = SignedBeacon { round: Round(1000), signature };
    let verified = EpochVerified::check(&Real, &MeshKey::pinned(key), &beacon);
    assert!(verified.is_some());
}
