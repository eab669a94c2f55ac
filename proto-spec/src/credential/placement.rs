//! Who holds the shares of a group: a deterministic function of the candidates and a seed that nobody could choose,
//! under the spread invariant.

use std::collections::BTreeMap;

use crate::error::Check;
use crate::types::{Beacon, HostId, Purpose, Terms};

/// A host that may hold a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The host.
    pub host: HostId,
    /// Its administrative domain.
    pub domain: &'a str,
    /// Its region.
    pub region: &'a str,
    /// Its zone.
    pub zone: &'a str,
}

/// Whether the spread invariant holds: any *a* domains together hold at most k-1 shares, and the others at least k.
pub fn spread_holds<'a>(terms: Terms, domains: impl IntoIterator<Item = &'a str>) -> bool {
    let domains: Vec<&str> = domains.into_iter().collect();
    let (total, hostile) = (domains.len(), tolerated_shares(terms, &domains));
    let k = usize::from(terms.k);
    total == usize::from(terms.n) && hostile < k && total - hostile >= k
}

/// The most shares that any *a* domains hold together.
pub fn tolerated_shares(terms: Terms, domains: &[&str]) -> usize {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for domain in domains {
        *counts.entry(domain).or_default() += 1;
    }
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    counts.iter().take(usize::from(terms.tolerate)).sum()
}

/// How many holders must be bound by a removal or a revocation before it is certain: those that are not, together with
/// the shares of the tolerated domains, are fewer than k.
pub fn certain_at(terms: Terms, domains: &[&str]) -> usize {
    let (k, n) = (usize::from(terms.k), usize::from(terms.n));
    (n + 1).saturating_sub(k).saturating_add(tolerated_shares(terms, domains))
}

/// Draws n holders; their order is that of the share indexes. As many domains as there are, then regions, then
/// zones; among equals the seed decides.
///
/// # Errors
/// [`Check::Spread`] where the candidates cannot meet the invariant.
pub fn draw(terms: Terms, candidates: &[Candidate<'_>], seed: &Beacon, nonce: &[u8]) -> Result<Vec<HostId>, Check> {
    let mut left: Vec<&Candidate<'_>> = candidates.iter().collect();
    left.sort_by_cached_key(|candidate| Purpose::Placement.digest(&[&seed.0, nonce, &candidate.host.0]));
    let mut chosen: Vec<&Candidate<'_>> = Vec::new();
    // How many were chosen of each domain, region and zone, counted as they are: whoever leads draws for anybody who asks.
    let mut crowds: [BTreeMap<&str, usize>; 3] = Default::default();
    while chosen.len() < usize::from(terms.n) {
        let crowding = |candidate: &Candidate<'_>| {
            let [domains, regions, zones] = &crowds;
            let of = |crowd: &BTreeMap<&str, usize>, name: &str| crowd.get(name).copied().unwrap_or(0);
            (of(domains, candidate.domain), of(regions, candidate.region), of(zones, candidate.zone))
        };
        // The first of the least crowded: `left` is in the order of the seed.
        let Some(at) = (0..left.len()).min_by_key(|at| left.get(*at).map(|candidate| crowding(candidate))) else {
            return Err(Check::Spread);
        };
        let next = left.remove(at);
        for (crowd, name) in crowds.iter_mut().zip([next.domain, next.region, next.zone]) {
            *crowd.entry(name).or_default() += 1;
        }
        chosen.push(next);
    }
    if !spread_holds(terms, chosen.iter().map(|candidate| candidate.domain)) {
        return Err(Check::Spread);
    }
    Ok(chosen.into_iter().map(|candidate| candidate.host).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u8, domain: &'static str, region: &'static str) -> Candidate<'static> {
        Candidate { host: HostId([number; 32]), domain, region, zone: "z" }
    }

    fn terms(k: u8, n: u8, tolerate: u8) -> Terms {
        Terms::new(k, n, tolerate).unwrap()
    }

    #[test]
    fn no_tolerated_domain_holds_k_shares_or_leaves_fewer_than_k() {
        assert!(spread_holds(terms(2, 3, 1), ["a", "b", "c"]));
        assert!(!spread_holds(terms(2, 3, 1), ["a", "a", "b"]), "domain a holds k");
        assert!(!spread_holds(terms(3, 4, 1), ["a", "a", "b", "c"]), "without a there are only two");
        assert!(spread_holds(terms(2, 3, 0), ["a", "a", "a"]));
        assert!(!spread_holds(terms(2, 3, 1), ["a", "b"]), "too few shares");
    }

    #[test]
    fn a_revocation_is_certain_once_the_others_and_the_tolerated_domains_are_fewer_than_k() {
        assert_eq!(certain_at(terms(2, 3, 1), &["a", "b", "c"]), 3);
        assert_eq!(certain_at(terms(3, 5, 1), &["a", "b", "c", "d", "e"]), 4);
        assert_eq!(certain_at(terms(3, 5, 1), &["a", "a", "b", "c", "d"]), 5);
        assert_eq!(certain_at(terms(2, 3, 0), &["a", "a", "a"]), 2);
    }

    #[test]
    fn what_cannot_be_spread_is_refused() {
        let hosts = [host(1, "a", "r"), host(2, "a", "r"), host(3, "b", "r")];
        assert_eq!(draw(terms(2, 3, 1), &hosts, &Beacon::ZERO, b""), Err(Check::Spread));
        assert_eq!(draw(terms(2, 4, 0), &hosts, &Beacon::ZERO, b""), Err(Check::Spread));
        assert!(draw(terms(2, 3, 0), &hosts, &Beacon::ZERO, b"").is_ok());
    }

    #[test]
    fn domains_come_before_regions_and_the_seed_decides_among_equals() {
        let hosts: Vec<_> = (0..12_u8)
            .map(|i| host(i, ["a", "b", "c", "d"][usize::from(i % 4)], ["r", "s", "t"][usize::from(i % 3)]))
            .collect();
        let drawn = draw(terms(3, 4, 1), &hosts, &Beacon([1; 32]), b"g").unwrap();
        let domain = |id: &HostId| hosts.iter().find(|h| h.host == *id).unwrap().domain;
        let mut domains: Vec<_> = drawn.iter().map(domain).collect();
        domains.sort_unstable();
        assert_eq!(domains, ["a", "b", "c", "d"]);
        let others: std::collections::BTreeSet<_> =
            (0..16_u8).map(|seed| draw(terms(3, 4, 1), &hosts, &Beacon([seed; 32]), b"g").unwrap()).collect();
        assert!(others.len() > 8, "the draw follows the seed");
    }
}
