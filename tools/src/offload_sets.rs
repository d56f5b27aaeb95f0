//! Legal sets of offloads, and few of them in which each pair of settings occurs.
//!
//! Pure. Whoever tries offloads takes the same sets by the same rule, and names them as it runs.

use std::collections::BTreeSet;

use roceway_runtime::{OffloadWish, Understood};

/// Every name that can be switched.
pub const NAMES: [&str; OffloadWish::NAMES.len()] = OffloadWish::NAMES;

/// A legal set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OffloadSet {
    /// A bit for each of [`NAMES`].
    bits: u32,
    /// What a worker is told.
    pub wish: OffloadWish,
}

/// Two settings and whether each is on: their places in [`NAMES`].
type Pairing = (usize, bool, usize, bool);

impl OffloadSet {
    /// The set as the setting `offload` has it.
    #[must_use]
    pub fn text(self) -> String {
        text(self.bits)
    }

    /// The pairs of settings, on or off, that occur in it.
    fn pairs(self) -> impl Iterator<Item = Pairing> {
        let on = move |place: usize| self.bits >> place & 1 != 0;
        (0..NAMES.len()).flat_map(move |a| (0..a).map(move |b| (a, on(a), b, on(b))))
    }
}

fn text(bits: u32) -> String {
    let on = |place: &usize| bits >> place & 1 != 0;
    let names: Vec<&str> = (0..NAMES.len()).filter(on).map(|place| NAMES[place]).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(",") }
}

/// All legal sets of those settings that `applies` names.
pub fn legal(applies: impl Fn(&str) -> bool) -> Vec<OffloadSet> {
    let mask = (0..NAMES.len())
        .filter(|place| applies(NAMES[*place]))
        .fold(0_u32, |mask, place| mask | 1 << place);
    let understood = |bits: u32| {
        let parsed = OffloadWish::parse(&text(bits), OffloadWish::NONE);
        parsed.ok().map(|Understood { wish, .. }| OffloadSet { bits, wish })
    };
    (0..1 << NAMES.len()).filter(|bits| bits & !mask == 0).filter_map(understood).collect()
}

/// Few sets in which each pair that any of `sets` has occurs: always the one that adds most.
#[must_use]
pub fn covering(sets: &[OffloadSet]) -> Vec<OffloadSet> {
    let mut open: BTreeSet<Pairing> = sets.iter().flat_map(|set| set.pairs()).collect();
    let mut chosen = Vec::new();
    while !open.is_empty() {
        let added = |set: &&OffloadSet| set.pairs().filter(|pair| open.contains(pair)).count();
        let Some(best) = sets.iter().max_by_key(added) else { break };
        let covered: BTreeSet<Pairing> = best.pairs().collect();
        open.retain(|pair| !covered.contains(pair));
        chosen.push(*best);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_of_settings_occurs_in_the_covering_set() {
        let sets = legal(|_| true);
        let few = covering(&sets);
        let all: BTreeSet<_> = sets.iter().flat_map(|set| set.pairs()).collect();
        let covered: BTreeSet<_> = few.iter().flat_map(|set| set.pairs()).collect();
        assert_eq!(all, covered);
        assert!(few.len() <= 20, "{} sets", few.len());
        // What the rules forbid is in neither: a TSO without its checksum, both ways to cut.
        let place = |name| NAMES.iter().position(|known| *known == name).unwrap();
        assert!(!all.contains(&(place("host_tso4"), true, place("csum"), false)));
        assert!(!all.contains(&(place("gso_uso"), true, place("gso"), true)));
    }

    #[test]
    fn settings_that_do_not_apply_stay_off() {
        let few = covering(&legal(|name| ["csum", "gso", "gso_uso", "gro"].contains(&name)));
        let texts: Vec<String> = few.iter().map(|set| set.text()).collect();
        assert!(texts.iter().all(|text| !text.contains("tso")), "{texts:?}");
        for cut in ["csum,gso,gro", "csum,gso_uso,gro"] {
            assert!(texts.contains(&cut.to_owned()), "{texts:?}");
        }
        assert!(texts.iter().all(|text| !text.contains("gso,gso_uso")), "{texts:?}");
        assert!((6..=8).contains(&few.len()), "{texts:?}");
    }
}
