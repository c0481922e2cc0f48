//! The tree under a tenant key: 2^64 wrapping keys, any of which can be destroyed alone.
//!
//! A tree of Goldreich, Goldwasser and Micali (1986): a node's two children are HMAC-SHA-256 of the
//! octets 0 and 1 under the node, and a leaf is reached from the root in 64 steps, by the bits of its
//! number, the highest first. Whoever holds a node holds all leaves below it and none beside it. A key
//! from which leaves were erased is the list of the [`Subtree`]s beside the erased paths.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::random::Randomness;
use crate::secret::Secret;
use crate::wire::{Decoder, Encoder, Malformed};

/// Steps from the root to a leaf.
const DEPTH: u8 = 64;

/// The number of a leaf: the writer's number and the writer's counter.
///
/// The key store gives every process a writer number of its own, so that no two wraps share a leaf;
/// neighbours in time are neighbours in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafNumber(pub u64);

impl LeafNumber {
    /// The leaf of a writer's counter.
    #[must_use]
    pub fn new(writer: u32, counter: u32) -> Self {
        Self(u64::from(writer) << 32 | u64::from(counter))
    }
}

impl fmt::Display for LeafNumber {
    /// Shows sixteen hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A node of the tree, and with it every leaf below it.
#[derive(Debug)]
struct Subtree {
    /// Steps from the root, 0 to 64.
    depth: u8,
    /// The path's bits, highest first, the rest zero.
    prefix: u64,
    node: Secret,
}

impl Subtree {
    /// Octets of an encoded subtree: depth, prefix, node.
    const BYTES: usize = 1 + 8 + 32;

    fn contains(&self, leaf: LeafNumber) -> bool {
        leaf.0 & prefix_mask(self.depth) == self.prefix
    }

    fn leaf(&self, leaf: LeafNumber) -> Secret {
        let mut node = Secret::copied_from(self.node.expose());
        for step in self.depth..DEPTH {
            node = child(&node, leaf.0 << step >> 63 == 1);
        }
        node
    }

    fn copy(&self) -> Self {
        Self { depth: self.depth, prefix: self.prefix, node: Secret::copied_from(self.node.expose()) }
    }

    /// The two halves. Not of a leaf, which has none.
    fn halves(&self) -> [Self; 2] {
        let half = |right: bool| Self {
            depth: self.depth + 1,
            prefix: self.prefix | u64::from(right) << (DEPTH - 1 - self.depth),
            node: child(&self.node, right),
        };
        [half(false), half(true)]
    }

    /// What is left of this subtree without these leaves, which are sorted and all lie below it.
    fn without(self, leaves: &[LeafNumber], left: &mut Vec<Subtree>) {
        if leaves.is_empty() {
            left.push(self);
        } else if self.depth < DEPTH {
            let [low, high] = self.halves();
            let (below, above) = leaves.split_at(leaves.partition_point(|leaf| leaf.0 < high.prefix));
            low.without(below, left);
            high.without(above, left);
        }
    }
}

/// The highest `depth` bits.
fn prefix_mask(depth: u8) -> u64 {
    u64::MAX.checked_shl(u32::from(DEPTH - depth)).unwrap_or(0)
}

fn child(node: &Secret, right: bool) -> Secret {
    Secret::filled_by(|bytes| bytes.copy_from_slice(&hmac(node.expose(), &[u8::from(right)])[..]))
}

/// HMAC-SHA-256 (RFC 2104) under a key of 32 octets.
pub(crate) fn hmac(key: &[u8; 32], message: &[u8]) -> Zeroizing<[u8; 32]> {
    // A key shorter than the hash's block is followed by zeros (RFC 2104, section 2); one of the block's own
    // length cannot be refused.
    let mut block = Zeroizing::new([0; 64]);
    let (start, _) = block.split_at_mut(key.len());
    start.copy_from_slice(key);
    let mac = <Hmac<Sha256> as KeyInit>::new((&*block).into()).chain_update(message);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// What is left of a tenant key: subtrees in the order of their leaves. Fresh, it is the root alone.
#[derive(Debug)]
pub(crate) struct Tree {
    subtrees: Vec<Subtree>,
}

impl Tree {
    /// A fresh root: every leaf can be derived.
    pub(crate) fn random(randomness: &dyn Randomness) -> crate::Result<Self> {
        Ok(Self { subtrees: vec![Subtree { depth: 0, prefix: 0, node: Secret::random(randomness)? }] })
    }

    /// The leaf, or `None` when it was erased.
    pub(crate) fn leaf(&self, number: LeafNumber) -> Option<Secret> {
        self.above(number).map(|subtree| subtree.leaf(number))
    }

    /// Whether a leaf can still be derived.
    pub(crate) fn holds(&self, number: LeafNumber) -> bool {
        self.above(number).is_some()
    }

    /// The one subtree that a leaf can lie below: the last that begins at or before it.
    fn above(&self, number: LeafNumber) -> Option<&Subtree> {
        let behind = self.subtrees.partition_point(|subtree| subtree.prefix <= number.0);
        let candidate = self.subtrees.get(behind.checked_sub(1)?)?;
        candidate.contains(number).then_some(candidate)
    }

    /// A tree from which these leaves cannot be derived, and every other can that could before. 64 subtrees for one
    /// leaf at most; a run of neighbours costs little more.
    pub(crate) fn without(&self, leaves: &[LeafNumber]) -> Self {
        let mut leaves = leaves.to_vec();
        leaves.sort_unstable();
        leaves.dedup();
        let mut subtrees = Vec::with_capacity(self.subtrees.len() + usize::from(DEPTH));
        for subtree in &self.subtrees {
            let first = leaves.partition_point(|leaf| leaf.0 < subtree.prefix);
            let behind =
                leaves.partition_point(|leaf| leaf.0 <= subtree.prefix | !prefix_mask(subtree.depth));
            subtree.copy().without(leaves.get(first..behind).unwrap_or_default(), &mut subtrees);
        }
        Self { subtrees }
    }

    /// How many subtrees the state holds.
    pub(crate) fn subtrees(&self) -> usize {
        self.subtrees.len()
    }

    /// The state as it is sealed in the key store: version 1, then each subtree's depth, prefix and node.
    pub(crate) fn encode(&self) -> Result<Zeroizing<Vec<u8>>, Malformed> {
        let mut out = Encoder::with_room(1 + 4 + self.subtrees.len() * Subtree::BYTES);
        out.u8(1).count(self.subtrees.len(), "subtrees")?;
        for subtree in &self.subtrees {
            out.u8(subtree.depth).u64(subtree.prefix).raw(subtree.node.expose());
        }
        Ok(Zeroizing::new(out.finish()))
    }

    /// Reads a state back; subtrees must be in order and must not overlap.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(bytes);
        if input.u8("version of the state")? != 1 {
            return Err(Malformed { what: "version of the state", at: 0 });
        }
        let mut subtrees: Vec<Subtree> = Vec::new();
        for _ in 0..input.count(Subtree::BYTES, "subtrees")? {
            let error = input.malformed("subtree");
            let depth = input.u8("depth")?;
            let prefix = input.u64("prefix")?;
            let node: Zeroizing<[u8; 32]> = input.array("node")?.into();
            let fits = depth <= DEPTH && prefix & !prefix_mask(depth) == 0;
            let follows = subtrees
                .last()
                .is_none_or(|previous| previous.prefix | !prefix_mask(previous.depth) < prefix);
            if !fits || !follows {
                return Err(error);
            }
            subtrees.push(Subtree { depth, prefix, node: Secret::copied_from(&node) });
        }
        input.end("end of the state")?;
        Ok(Self { subtrees })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::danger::SeededRandom;
    use proptest::prelude::*;

    #[test]
    fn a_leaf_is_64_steps_of_hmac_by_its_bits() {
        let tree =
            Tree { subtrees: vec![Subtree { depth: 0, prefix: 0, node: Secret::copied_from(&[7; 32]) }] };
        let number = LeafNumber::new(0x8000_0001, 0x2);
        let mut node = Secret::copied_from(&[7; 32]);
        for bit in format!("{:064b}", number.0).bytes() {
            node = child(&node, bit == b'1');
        }
        assert!(tree.leaf(number).unwrap().same_as(&node));
    }

    #[test]
    fn a_subtree_holds_its_own_leaves_and_no_others() {
        let root = Tree::random(&SeededRandom::new(1)).unwrap();
        // The left half of the tree, and the leaf furthest to the right.
        let left = child(&root.subtrees[0].node, false);
        let last = root.leaf(LeafNumber(u64::MAX)).unwrap();
        let rest = Tree {
            subtrees: vec![
                Subtree { depth: 1, prefix: 0, node: left },
                Subtree { depth: 64, prefix: u64::MAX, node: last },
            ],
        };
        for number in [0, 1, u64::MAX >> 1, u64::MAX].map(LeafNumber) {
            assert!(rest.leaf(number).unwrap().same_as(&root.leaf(number).unwrap()), "{number}");
        }
        for number in [1 << 63, u64::MAX - 1].map(LeafNumber) {
            assert!(rest.leaf(number).is_none(), "{number}");
        }
        let again = Tree::decode(&rest.encode().unwrap()).unwrap();
        assert!(again.leaf(LeafNumber(5)).unwrap().same_as(&root.leaf(LeafNumber(5)).unwrap()));
        assert!(again.leaf(LeafNumber(1 << 63)).is_none());
    }

    #[test]
    fn every_set_of_leaves_can_be_taken_and_no_other_leaf_goes_with_it() {
        // A tree of 16 leaves: what hangs below one node of the 60th step.
        let node = Secret::copied_from(&[9; 32]);
        let small = Tree { subtrees: vec![Subtree { depth: 60, prefix: 0x70, node }] };
        let whole: Vec<_> = (0x70..0x80).map(|leaf| small.leaf(LeafNumber(leaf)).unwrap()).collect();
        for set in 0..1u32 << 16 {
            let taken: Vec<_> =
                (0..16).filter(|bit| set >> bit & 1 == 1).map(|bit| LeafNumber(0x70 + bit)).collect();
            let rest = small.without(&taken);
            for (number, leaf) in (0x70..).map(LeafNumber).zip(&whole) {
                let derived = rest.leaf(number);
                assert!(derived.is_none_or(|derived| derived.same_as(leaf)), "{set:x} {number}");
                assert_eq!(rest.holds(number), !taken.contains(&number));
            }
            // Nor does any node that is left lie on the way to a leaf that was taken.
            assert!(taken.iter().all(|leaf| rest.subtrees.iter().all(|subtree| !subtree.contains(*leaf))));
        }
    }

    #[test]
    fn neighbours_cost_little_and_one_alone_at_most_64_subtrees() {
        let root = Tree::random(&SeededRandom::new(2)).unwrap();
        assert_eq!(root.without(&[LeafNumber::new(7, 9)]).subtrees(), 64);
        // A hundred thousand leaves of one writer in a row, as retiring segments takes them, one at a time.
        let mut tree = root.without(&[]);
        for counter in 0..1_000 {
            tree = tree.without(&[LeafNumber::new(7, counter)]);
        }
        let row: Vec<_> = (1_000..100_000).map(|counter| LeafNumber::new(7, counter)).collect();
        tree = tree.without(&row);
        assert!(tree.subtrees() <= 64, "{}", tree.subtrees());
        assert!(tree.leaf(LeafNumber::new(7, 99_999)).is_none() && tree.holds(LeafNumber::new(7, 100_000)));
    }

    #[test]
    fn states_that_overlap_or_run_backwards_are_refused() {
        let node = || Secret::copied_from(&[1; 32]);
        let bad = [
            vec![(1, 0), (1, 0)],
            vec![(1, 1 << 63), (1, 0)],
            vec![(0, 0), (64, 5)],
            vec![(1, 1)],
            vec![(65, 0)],
        ];
        for subtrees in bad {
            let state = Tree {
                subtrees: subtrees
                    .iter()
                    .map(|&(depth, prefix)| Subtree { depth, prefix, node: node() })
                    .collect(),
            };
            assert!(Tree::decode(&state.encode().unwrap()).is_err(), "{subtrees:?}");
        }
        assert!(Tree::decode(&[1, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(Tree::decode(&[1, 0, 0, 0, 0, 9]).is_err());
    }

    proptest! {
        #[test]
        fn taking_leaves_one_by_one_or_together_is_the_same(
            taken in prop::collection::vec(any::<u64>(), 1..8),
            near in prop::collection::vec(0..64u64, 0..8),
            other in any::<u64>(),
        ) {
            let root = Tree::random(&SeededRandom::new(3)).unwrap();
            let leaves: Vec<_> =
                taken.iter().copied().chain(near.iter().map(|bit| taken[0] ^ 1 << bit)).map(LeafNumber).collect();
            let together = root.without(&leaves);
            let one_by_one = leaves.iter().fold(root.without(&[]), |tree, leaf| tree.without(&[*leaf]));
            prop_assert_eq!(&together.encode().unwrap()[..], &one_by_one.encode().unwrap()[..]);
            let again = Tree::decode(&together.encode().unwrap()).unwrap();
            for leaf in &leaves {
                prop_assert!(again.leaf(*leaf).is_none());
            }
            for bit in 0..64 {
                let neighbour = LeafNumber(other ^ 1 << bit);
                let expected = (!leaves.contains(&neighbour)).then(|| root.leaf(neighbour).unwrap());
                let derived = again.leaf(neighbour);
                prop_assert_eq!(derived.is_some(), expected.is_some());
                prop_assert!(derived.zip(expected).is_none_or(|(derived, expected)| derived.same_as(&expected)));
            }
        }

        #[test]
        fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(tree) = Tree::decode(&bytes) {
                prop_assert_eq!(&tree.encode().unwrap()[..], &bytes[..]);
            }
        }
    }
}
