//! P1 over random terms: any k of n combine, fewer do not; and the draw of holders keeps the spread.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use proptest::prelude::*;
use spec::credential::placement::{Candidate, draw, spread_holds};
use spec::suite::{Fake, Generator, Real, Seed, Suite};
use spec::types::{Beacon, HostId, ShareIndex, Terms};

fn terms() -> impl Strategy<Value = (Terms, u64)> {
    (2_u8..=7, 0_u8..=5, any::<u64>())
        .prop_map(|(k, more, seed)| (Terms::new(k, k + more, 1).expect("sound terms"), seed))
}

fn check(suite: &dyn Suite, terms: Terms, seed: u64) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let dealt = suite.deal(terms, &mut Generator::new(&Seed(bytes.into()))).expect("sound terms are dealt");
    let (k, n) = (usize::from(terms.k), usize::from(terms.n));
    let c0 = dealt.commitments[0];
    // A window of k shares from anywhere, in reverse order: any k will do, in any order.
    let start = usize::try_from(seed % u64::from(terms.n)).expect("small");
    let pick: Vec<_> = (0..k)
        .rev()
        .map(|i| (start + i) % n)
        .map(|i| (ShareIndex(u8::try_from(i + 1).expect("small")), &dealt.shares[i]))
        .collect();
    assert_eq!(suite.combine(terms.k, &pick, &c0).expect("k shares combine").expose(), dealt.secret.expose());
    assert!(suite.combine(terms.k, &pick[1..], &c0).is_none());
    if k > 2 {
        assert!(suite.combine(terms.k - 1, &pick[1..], &c0).is_none(), "k-1 shares taken for enough");
    }
    for (i, share) in dealt.shares.iter().enumerate() {
        let index = ShareIndex(u8::try_from(i + 1).expect("small"));
        assert!(suite.share_fits(terms.k, &dealt.commitments, index, share));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn p1_any_k_of_n_combine_and_fewer_do_not((terms, seed) in terms()) {
        check(&Real, terms, seed);
        check(&Fake, terms, seed);
    }
}

proptest! {
    #[test]
    fn whatever_is_drawn_keeps_the_spread(
        (terms, seed) in terms(),
        domains in proptest::collection::vec(0_usize..6, 1..24),
    ) {
        let names = ["a", "b", "c", "d", "e", "f"];
        let candidates: Vec<Candidate<'_>> = domains
            .iter()
            .enumerate()
            .map(|(i, domain)| Candidate {
                host: HostId([u8::try_from(i).expect("small"); 32]),
                domain: names[*domain],
                region: "r",
                zone: "z",
            })
            .collect();
        let mut beacon = Beacon::ZERO;
        beacon.0[..8].copy_from_slice(&seed.to_be_bytes());
        if let Ok(holders) = draw(terms, &candidates, &beacon, b"group") {
            let of = |host: &HostId| candidates.iter().find(|c| c.host == *host).expect("a candidate").domain;
            prop_assert!(spread_holds(terms, holders.iter().map(of)));
            let distinct: std::collections::BTreeSet<_> = holders.iter().collect();
            prop_assert_eq!(distinct.len(), usize::from(terms.n));
        }
    }
}
