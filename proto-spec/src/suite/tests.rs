use super::*;
use crate::types::SecretBytes;
use zeroize::Zeroizing;

fn generator(byte: u8) -> Generator {
    Generator::new(&Seed(Zeroizing::new([byte; 32])))
}

fn suites() -> [Box<dyn Suite>; 2] {
    [Box::new(Real), Box::new(Fake)]
}

fn terms(k: u8, n: u8) -> Terms {
    Terms::new(k, n, 1).unwrap()
}

#[test]
fn any_k_shares_combine_and_fewer_do_not() {
    for suite in suites() {
        let dealt = suite.deal(terms(3, 5), &mut generator(1)).unwrap();
        let c0 = dealt.commitments[0];
        let share = |i: usize| (ShareIndex(u8::try_from(i).unwrap() + 1), &dealt.shares[i]);
        for pick in [[0, 1, 2], [4, 2, 0], [1, 3, 4]] {
            let secret = suite.combine(3, &pick.map(share), &c0).unwrap();
            assert_eq!(secret.expose(), dealt.secret.expose());
        }
        assert!(suite.combine(3, &[share(0), share(1)], &c0).is_none());
        assert!(suite.combine(2, &[share(0), share(1)], &c0).is_none(), "two shares give a wrong secret");
        assert!(suite.combine(3, &[share(0), share(1), share(1)], &c0).is_none(), "one share counts once");
    }
}

#[test]
fn a_share_fits_only_its_own_index_degree_and_commitments() {
    for suite in suites() {
        let dealt = suite.deal(terms(2, 3), &mut generator(2)).unwrap();
        let other = suite.deal(terms(2, 3), &mut generator(3)).unwrap();
        let fits = |commitments: &[Commitment], k, i, share| suite.share_fits(k, commitments, ShareIndex(i), share);
        assert!(fits(&dealt.commitments, 2, 1, &dealt.shares[0]));
        assert!(!fits(&dealt.commitments, 2, 2, &dealt.shares[0]));
        assert!(!fits(&dealt.commitments, 2, 0, &dealt.secret), "index zero is the secret itself");
        assert!(!fits(&dealt.commitments, 3, 1, &dealt.shares[0]), "another degree than agreed");
        assert!(!fits(&dealt.commitments[..1], 2, 1, &dealt.shares[0]));
        assert!(!fits(&other.commitments, 2, 1, &dealt.shares[0]));
        assert!(!fits(&dealt.commitments, 2, 1, &other.shares[0]));
    }
}

#[test]
fn shares_of_two_generations_do_not_combine() {
    for suite in suites() {
        let (old, new) =
            (suite.deal(terms(2, 3), &mut generator(4)).unwrap(), suite.deal(terms(2, 3), &mut generator(5)).unwrap());
        let mix = [(ShareIndex(1), &old.shares[0]), (ShareIndex(2), &new.shares[1])];
        assert!(suite.combine(2, &mix, &old.commitments[0]).is_none());
        assert!(suite.combine(2, &mix, &new.commitments[0]).is_none());
    }
}

#[test]
fn a_sealed_message_opens_only_with_its_key_and_info() {
    for suite in suites() {
        let (secret, public) = suite.hpke_keys(&SecretBytes::copy_of(&[7; 32]));
        let (stranger, _) = suite.hpke_keys(&SecretBytes::copy_of(&[8; 32]));
        let mut sealed = suite.hpke_seal(&public, b"info", b"a share", &mut generator(6)).unwrap();
        assert_eq!(sealed.len(), 32 + 7 + 16);
        assert_eq!(suite.hpke_open(&secret, b"info", &sealed).unwrap().expose(), b"a share");
        assert!(suite.hpke_open(&secret, b"inf0", &sealed).is_none());
        assert!(suite.hpke_open(&stranger, b"info", &sealed).is_none());
        assert!(suite.hpke_open(&secret, b"info", &sealed[..31]).is_none());
        sealed[40] ^= 1;
        assert!(suite.hpke_open(&secret, b"info", &sealed).is_none());
        assert!(suite.hpke_seal(&HpkePublic::ZERO, b"info", b"x", &mut generator(6)).is_none(), "zeros are no key");
    }
}

#[test]
fn signatures_hold_only_for_their_message_and_key() {
    for suite in suites() {
        let secret = suite.bls_secret(&mut generator(9));
        let key = VerifiedKey::check(&*suite, &suite.bls_public(&secret).unwrap(), &suite.bls_prove(&secret).unwrap())
            .unwrap();
        let mut signature = suite.bls_sign(&secret, b"message").unwrap();
        assert!(key.holds(&*suite, b"message", &signature));
        assert!(!key.holds(&*suite, b"massage", &signature));
        assert!(
            VerifiedKey::check(&*suite, key.public(), &signature).is_none(),
            "a signature is no proof of possession"
        );
        signature.0[47] ^= 1;
        assert!(!key.holds(&*suite, b"message", &signature));

        let seed = SecretBytes::copy_of(&[3; 32]);
        let public = suite.ed25519_public(&seed).unwrap();
        let signature = suite.ed25519_sign(&seed, b"message").unwrap();
        assert!(suite.ed25519_holds(&public, b"message", &signature));
        assert!(!suite.ed25519_holds(&public, b"massage", &signature));
    }
}

#[test]
fn what_blst_accepts_blsful_accepts_too() {
    use blsful::{Bls12381G1Impl, PublicKey, SecretKey, SignatureSchemes};
    let key = SecretKey::<Bls12381G1Impl>::from_hash(b"seed");
    let secret = SecretBytes::copy_of(&key.to_be_bytes());
    let signature = key.sign(SignatureSchemes::ProofOfPossession, b"m").unwrap();
    assert!(signature.verify(&PublicKey::from(&key), b"m").is_ok());
    let ours = Real.bls_sign(&secret, b"m").unwrap();
    assert!(Real.bls_holds(&Real.bls_public(&secret).unwrap(), b"m", &ours));
    assert_eq!(signature.as_raw_value().to_compressed(), ours.0);
}

#[test]
fn the_identity_is_no_key() {
    let mut identity = BlsPublic::ZERO;
    identity.0[0] = 0xc0;
    let mut signature = BlsSignature::ZERO;
    signature.0[0] = 0xc0;
    assert!(!Real.bls_holds(&identity, b"m", &signature));
    assert!(VerifiedKey::check(&Real, &identity, &signature).is_none());
}

#[test]
fn any_t_partials_sign_for_the_key_and_fewer_do_not() {
    for suite in suites() {
        let dealt = suite.key_deal(3, 5, None, &mut generator(10)).unwrap();
        let key = dealt.commitments[0];
        assert_eq!(suite.bls_public(&dealt.secret), Some(key));
        let partial = |i: u8| {
            let share = &dealt.shares[usize::from(i) - 1];
            assert!(suite.key_share_fits(3, &dealt.commitments, ShareIndex(i), share));
            let signature = suite.beacon_sign(share, b"round").unwrap();
            let public = suite.key_public_of(&dealt.commitments, ShareIndex(i)).unwrap();
            assert!(suite.beacon_holds(&public, b"round", &signature));
            (ShareIndex(i), signature)
        };
        let all = suite.bls_combine(&[partial(1), partial(2), partial(3)]).unwrap();
        assert!(suite.beacon_holds(&key, b"round", &all));
        assert_eq!(suite.bls_combine(&[partial(5), partial(2), partial(4)]), Some(all));
        assert_eq!(suite.beacon_sign(&dealt.secret, b"round"), Some(all), "the signature is the key's own");
        let two = suite.bls_combine(&[partial(1), partial(2)]).unwrap();
        assert!(!suite.beacon_holds(&key, b"round", &two));
        assert!(suite.bls_combine(&[partial(1), partial(1), partial(2)]).is_none());
        assert!(!suite.bls_holds(&key, b"round", &all), "a beacon is no other signature");
    }
}

#[test]
fn a_degree_other_than_agreed_is_no_deal() {
    for suite in suites() {
        assert!(suite.key_deal(1, 3, None, &mut generator(11)).is_none());
        let dealt = suite.key_deal(2, 3, None, &mut generator(11)).unwrap();
        assert!(!suite.key_share_fits(3, &dealt.commitments, ShareIndex(1), &dealt.shares[0]));
        assert!(!suite.key_share_fits(2, &dealt.commitments, ShareIndex(2), &dealt.shares[0]));
        assert!(!suite.key_share_fits(2, &dealt.commitments, ShareIndex(0), &dealt.secret));
    }
}
