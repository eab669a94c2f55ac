//! Merkle trees: a root that stands in a header, and paths by which an outsider checks one leaf against it.
//!
//! The shape is that of RFC 9162, 2.1: a leaf without a partner rises as it is. Leaves and nodes are hashed under
//! different tags.

use crate::types::{Digest, Purpose};

/// Steps from a leaf to the root; a tree of 2^40 leaves has as many.
pub const PATH_MAX: usize = 40;

fn node(left: &Digest, right: &Digest) -> Digest {
    Purpose::TreeNode.digest(&[&left.0, &right.0])
}

fn level_above(level: &[Digest]) -> Vec<Digest> {
    let up = |pair: &[Digest]| match pair {
        [left, right] => node(left, right),
        [alone] => *alone,
        _ => Digest::ZERO,
    };
    level.chunks(2).map(up).collect()
}

/// The root over leaves in their order; zeros where there are none.
pub fn root(leaves: &[Digest]) -> Digest {
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        level = level_above(&level);
    }
    level.first().copied().unwrap_or(Digest::ZERO)
}

/// The path of the leaf at a place: its partner on each level, none where it rises alone.
pub fn path(leaves: &[Digest], place: usize) -> Vec<Option<Digest>> {
    let (mut level, mut at, mut path) = (leaves.to_vec(), place, Vec::new());
    while level.len() > 1 {
        path.push(level.get(at ^ 1).copied());
        level = level_above(&level);
        at /= 2;
    }
    path
}

/// Whether a leaf stands at a place under a root.
pub fn holds(root: &Digest, leaf: &Digest, place: usize, path: &[Option<Digest>]) -> bool {
    let mut at = place;
    let mut hash = *leaf;
    for step in path.iter().take(PATH_MAX) {
        hash = match step {
            Some(partner) if at % 2 == 1 => node(partner, &hash),
            Some(partner) => node(&hash, partner),
            // Only the last of an odd number rises alone, and that place is even.
            None if at % 2 == 1 => return false,
            None => hash,
        };
        at /= 2;
    }
    path.len() <= PATH_MAX && at == 0 && hash == *root
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: u8) -> Vec<Digest> {
        (0..count).map(|i| Digest([i; 32])).collect()
    }

    #[test]
    fn every_leaf_has_a_path_and_no_other_place_takes_it() {
        for count in 1..20 {
            let leaves = leaves(count);
            let root = root(&leaves);
            for (place, leaf) in leaves.iter().enumerate() {
                let path = path(&leaves, place);
                assert!(holds(&root, leaf, place, &path));
                assert!(!holds(&root, &Digest([0xee; 32]), place, &path));
                assert!(count < 2 || !holds(&root, leaf, place ^ 1, &path) || path[0].is_none());
                assert!(!holds(&root, leaf, place + 64, &path));
            }
        }
    }

    #[test]
    fn order_and_number_of_leaves_change_the_root() {
        assert_ne!(root(&leaves(3)), root(&leaves(4)));
        let mut swapped = leaves(4);
        swapped.swap(1, 2);
        assert_ne!(root(&swapped), root(&leaves(4)));
        assert_eq!(root(&[]), Digest::ZERO);
    }
}
