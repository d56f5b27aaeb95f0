//! Offloads as users name them: which are wanted, which are in use, and why not all.
//!
//! A wish is a set of virtio-net's features and of what Roceway does in software in their place.
//! The words of `offload` are the specification's names in small letters; LKL's hexadecimal mask is
//! an alias. Owns no device; [`crate::start`] makes of a wish what a device is asked for.

use std::fmt;

use roceway_rdma_virtio::nic::Capabilities;
use roceway_rdma_virtio::virtio::features::{Features, Wish};

/// What is agreed on in any case.
const BASE: Features = Features::VERSION_1.with(Features::INDIRECT_DESC);

/// What software can segment as well as a device.
const BY_GSO: Features = Features::HOST_LARGE;

/// Everything that a user may switch and a device may offer, in the order in which it is shown.
const NAMES: &[(&str, Features)] = &[
    ("csum", Features::CSUM),
    ("guest_csum", Features::GUEST_CSUM),
    ("host_tso4", Features::HOST_TSO4),
    ("host_tso6", Features::HOST_TSO6),
    ("host_ecn", Features::HOST_ECN),
    ("host_uso", Features::HOST_USO),
    ("guest_tso4", Features::GUEST_TSO4),
    ("guest_tso6", Features::GUEST_TSO6),
    ("guest_ecn", Features::GUEST_ECN),
    ("guest_uso4", Features::GUEST_USO4),
    ("guest_uso6", Features::GUEST_USO6),
    ("mrg_rxbuf", Features::MRG_RXBUF),
];
/// Segmentation in software, as late as can be.
const GSO: &str = "gso";
/// Joining of received segments in software, as early as can be.
const GRO: &str = "gro";
/// Receive buffers for the largest packet instead of ones that are merged.
const BIG_PACKETS: &str = "big_packets";
/// UDP fragmentation offload, which is never offered; [`UFO_BITS`] of LKL's mask.
const UFO: [&str; 2] = ["guest_ufo", "host_ufo"];
const UFO_BITS: u64 = 1 << 10 | 1 << 14;

/// Which offloads are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OffloadWish {
    features: Features,
    gso: bool,
    gro: bool,
}

/// A wish as it was understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Understood {
    /// The wish.
    pub wish: OffloadWish,
    /// What was asked for and is never offered.
    pub cleared: Vec<&'static str>,
}

/// All but joining in software: one frame more or less costs the stack less than joining it.
impl Default for OffloadWish {
    fn default() -> OffloadWish {
        OffloadWish { gro: false, ..OffloadWish::ALL }
    }
}

impl OffloadWish {
    /// Every name that can be switched on its own.
    pub const NAMES: [&'static str; NAMES.len() + 2] = {
        let mut names = [GSO; NAMES.len() + 2];
        let mut place = 0;
        while place < NAMES.len() {
            names[place] = NAMES[place].0;
            place += 1;
        }
        names[NAMES.len() + 1] = GRO;
        names
    };

    /// Nothing: checksums and segments are the stack's own, and packets fit a buffer.
    pub const NONE: OffloadWish = OffloadWish { features: Features::NONE, gso: false, gro: false };

    /// Everything that the device can, and in software what it cannot.
    pub const ALL: OffloadWish = OffloadWish {
        features: Features(
            Features::CSUM.0
                | Features::GUEST_CSUM.0
                | Features::HOST_TSO4.0
                | Features::HOST_TSO6.0
                | Features::HOST_ECN.0
                | Features::HOST_USO.0
                | Features::GUEST_TSO4.0
                | Features::GUEST_TSO6.0
                | Features::GUEST_ECN.0
                | Features::GUEST_USO4.0
                | Features::GUEST_USO6.0
                | Features::MRG_RXBUF.0,
        ),
        gso: true,
        gro: true,
    };

    /// Understands a list of names, `none`, `all`, or LKL's mask, such as `0x9883`; or changes to
    /// `before`: names with a plus or minus in front.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str, before: OffloadWish) -> Result<Understood, String> {
        let words: Vec<&str> = text.split(',').map(str::trim).collect();
        let changes = words[0].starts_with(['+', '-']);
        let mut wish = if changes { before } else { OffloadWish::NONE };
        let mut cleared = Vec::new();
        for (number, word) in words.iter().enumerate() {
            let signed = word.strip_prefix('+').map(|name| (true, name));
            let signed = signed.or_else(|| word.strip_prefix('-').map(|name| (false, name)));
            match (*word, signed) {
                ("none", _) if number == 0 => wish = OffloadWish::NONE,
                ("all", _) if number == 0 => wish = OffloadWish::ALL,
                (mask, None) if number == 0 && mask.starts_with("0x") => {
                    wish = of_mask(mask, &mut cleared)?;
                }
                (name, None) if !changes => wish.switch(name, true, &mut cleared)?,
                (_, Some((on, name))) => wish.switch(name, on, &mut cleared)?,
                (name, None) => return Err(format!("changes only, such as +{name} or -{name}")),
            }
        }
        let both = |name: &str| words.iter().any(|word| word.trim_start_matches('+') == name);
        if both(BIG_PACKETS) && both("mrg_rxbuf") {
            return Err("one of big_packets and mrg_rxbuf: they exclude each other".to_owned());
        }
        wish.check().map_err(|why| format!("a legal set, but {why}"))?;
        Ok(Understood { wish, cleared })
    }

    fn switch(
        &mut self,
        name: &str,
        on: bool,
        cleared: &mut Vec<&'static str>,
    ) -> Result<(), String> {
        if let Some(ufo) = UFO.iter().find(|ufo| **ufo == name) {
            if on {
                cleared.push(ufo);
            }
            return Ok(());
        }
        match (name, NAMES.iter().find(|(known, _)| *known == name)) {
            (GSO, _) => self.gso = on,
            (GRO, _) => self.gro = on,
            (BIG_PACKETS, _) => self.set(Features::MRG_RXBUF, !on),
            (_, Some((_, feature))) => self.set(*feature, on),
            (_, None) => return Err(format!("{}{}", wanted(), nearest(name))),
        }
        Ok(())
    }

    fn set(&mut self, feature: Features, on: bool) {
        let without = self.features.without(feature);
        self.features = if on { without.with(feature) } else { without };
    }

    /// Whether the set is legal.
    ///
    /// # Errors
    /// The name of what is missing.
    pub fn check(&self) -> Result<(), String> {
        self.features.with(BASE).check().map_err(|error| error.to_string().to_lowercase())?;
        if self.gso && !self.features.has(Features::CSUM) {
            return Err("gso needs csum".to_owned());
        }
        Ok(())
    }

    /// Whether software segments what the device does not.
    #[must_use]
    pub fn gso(&self) -> bool {
        self.gso
    }

    /// Whether software joins received segments.
    #[must_use]
    pub fn gro(&self) -> bool {
        self.gro
    }

    /// The virtio-net features among it.
    #[must_use]
    pub fn features(&self) -> Features {
        self.features
    }

    /// The same without what would be sent whole and is not taken whole. An RDMA wire does not know
    /// what its other ends take: two ends with one setting understand each other by this.
    /// `has_room` says whether receive buffers of `memory` hold the largest packet unmerged.
    pub(crate) fn alike(mut self, has_room: bool) -> OffloadWish {
        if !has_room && !self.features.has(Features::MRG_RXBUF) {
            let large = Features::GUEST_LARGE.with(Features::GUEST_ECN);
            self.features = self.features.without(large);
        }
        for (sent, taken) in [
            (Features::HOST_TSO4, Features::GUEST_TSO4),
            (Features::HOST_TSO6, Features::GUEST_TSO6),
            (Features::HOST_ECN, Features::GUEST_ECN),
            (Features::HOST_USO, Features::GUEST_USO4),
            (Features::HOST_USO, Features::GUEST_USO6),
        ] {
            if !self.features.has(taken) {
                self.features = self.features.without(sent);
            }
        }
        let has_tso = [Features::HOST_TSO4, Features::HOST_TSO6].map(|tso| self.features.has(tso));
        if has_tso == [false, false] {
            self.features = self.features.without(Features::HOST_ECN);
        }
        self
    }

    /// What a device with these capabilities is asked for.
    pub(crate) fn for_device(&self, nic: &Capabilities) -> Wish {
        let native = Features::native(nic);
        let asked = self.features.with(BASE);
        if self.gso {
            return Wish { features: asked.with(BY_GSO), software: BY_GSO.without(self.features) };
        }
        // Without it nobody does in software what the stack does at less cost.
        let by_device = Features::HOST_LARGE.with(Features::CSUM);
        Wish::from(asked.without(by_device.without(native)))
    }
}

fn of_mask(text: &str, cleared: &mut Vec<&'static str>) -> Result<OffloadWish, String> {
    let digits = text.trim_start_matches("0x");
    let mask = u64::from_str_radix(digits, 16).map_err(|_bad| wanted())?;
    let known = NAMES.iter().fold(UFO_BITS, |all, (_, feature)| all | feature.0);
    let unknown = mask & !known;
    if unknown != 0 {
        return Err(format!("a mask of the bits {known:#x}; {unknown:#x} is none of them"));
    }
    for (name, bit) in UFO.into_iter().zip([1 << 10, 1 << 14]) {
        if mask & bit != 0 {
            cleared.push(name);
        }
    }
    Ok(OffloadWish { features: Features(mask & !UFO_BITS), gso: false, gro: false })
}

fn all_names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name).chain([GSO, GRO, BIG_PACKETS])
}

fn wanted() -> String {
    let names: Vec<&str> = all_names().collect();
    format!("none, all, a mask such as 0x9883, or a list of {}", names.join(", "))
}

fn nearest(name: &str) -> String {
    let likeness = |known: &str| strsim::jaro_winkler(name, known);
    let best = all_names().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    best.filter(|best| likeness(best) > 0.7)
        .map_or(String::new(), |best| format!("; did you mean {best}?"))
}

impl fmt::Display for OffloadWish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<&str> = named(self.features).collect();
        names.extend(self.gso.then_some(GSO));
        names.extend(self.gro.then_some(GRO));
        f.write_str(&if names.is_empty() { "none".to_owned() } else { names.join(",") })
    }
}

fn named(features: Features) -> impl Iterator<Item = &'static str> {
    NAMES.iter().filter(move |(_, feature)| features.has(*feature)).map(|(name, _)| *name)
}

/// Which offloads are in use, and what else was wanted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OffloadsInUse {
    /// Names as in the setting `offload`. What is there as `csum` may be done in software: see
    /// [`OffloadsInUse::software_checksum`].
    pub names: Vec<&'static str>,
    /// The device does not compute checksums: software does, last.
    pub software_checksum: bool,
    /// What was wanted by name and is not there, since the device does not offer it.
    pub missing: Vec<&'static str>,
}

impl OffloadsInUse {
    /// What became of a wish: `features` were agreed on, `native` is what the device does of them.
    pub(crate) fn new(wish: OffloadWish, features: Features, native: Features) -> OffloadsInUse {
        let software = BY_GSO.and(features).without(native);
        let in_use = features.without(software);
        let mut names: Vec<&str> = named(in_use).collect();
        names.extend((software != Features::NONE).then_some(GSO));
        names.extend(wish.gro.then_some(GRO));
        let big = features.has(Features::GUEST_LARGE) && !features.has(Features::MRG_RXBUF);
        names.extend(big.then_some(BIG_PACKETS));
        OffloadsInUse {
            names,
            software_checksum: features.has(Features::CSUM) && !native.has(Features::CSUM),
            missing: named(wish.features.without(in_use)).collect(),
        }
    }
}

impl fmt::Display for OffloadsInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&if self.names.is_empty() { "none".to_owned() } else { self.names.join(",") })?;
        if self.software_checksum {
            f.write_str(" (csum in software)")?;
        }
        if !self.missing.is_empty() {
            write!(f, " (not offered: {})", self.missing.join(","))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(text: &str) -> String {
        match OffloadWish::parse(text, OffloadWish::ALL) {
            Ok(Understood { wish, cleared }) if cleared.is_empty() => wish.to_string(),
            Ok(Understood { wish, cleared }) => format!("{wish} without {}", cleared.join(",")),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn lists_masks_and_changes_are_understood() {
        let all = "csum,guest_csum,host_tso4,host_tso6,host_ecn,host_uso,guest_tso4,guest_tso6,\
                   guest_ecn,guest_uso4,guest_uso6,mrg_rxbuf,gso,gro";
        let without = |names: &[&str]| {
            let kept = all.split(',').filter(|name| !names.contains(name));
            kept.collect::<Vec<&str>>().join(",")
        };
        let changed = [
            ("all,-mrg_rxbuf,-gso", without(&["mrg_rxbuf", "gso"])),
            ("-gso,-guest_tso6", without(&["gso", "guest_tso6"])),
            ("+big_packets,-gro", without(&["mrg_rxbuf", "gro"])),
        ];
        for (text, expected) in changed {
            assert_eq!(understood(text), expected, "{text}");
        }
        let rows = [
            ("none", "none"),
            ("all", all),
            ("csum, guest_csum", "csum,guest_csum"),
            ("none,+csum,+gso", "csum,gso"),
            ("0x0", "none"),
            ("0x9883", "csum,guest_csum,host_tso4,host_tso6,guest_tso4,mrg_rxbuf"),
            ("0x883,+gso,+gro", "csum,guest_csum,host_tso4,guest_tso4,gso,gro"),
            ("0x4403", "csum,guest_csum without guest_ufo,host_ufo"),
            ("csum,host_ufo", "csum without host_ufo"),
            ("0x100000000000003", "csum,guest_csum,host_uso"),
        ];
        for (text, expected) in rows {
            assert_eq!(understood(text), expected, "{text}");
        }
        for (name, feature) in NAMES {
            assert_eq!(*name, format!("{feature:?}").to_lowercase());
        }
    }

    #[test]
    fn what_two_ends_with_one_setting_send_whole_they_take_whole() {
        let alike = |text: &str, has_room: bool| {
            let wish = OffloadWish::parse(text, OffloadWish::NONE).unwrap().wish.alike(has_room);
            assert_eq!(wish.check(), Ok(()), "{text}");
            wish.to_string()
        };
        let all = OffloadWish::ALL.to_string();
        let rows = [
            ("all", false, all.as_str()),
            ("all,-mrg_rxbuf", true, &all.replace("mrg_rxbuf,", "")),
            ("all,-mrg_rxbuf", false, "csum,guest_csum,gso,gro"),
            ("csum,host_tso4,host_ecn,host_uso,mrg_rxbuf", false, "csum,mrg_rxbuf"),
            (
                "csum,guest_csum,host_tso6,host_ecn,guest_tso4,guest_ecn,mrg_rxbuf",
                false,
                "csum,guest_csum,guest_tso4,guest_ecn,mrg_rxbuf",
            ),
            (
                "csum,guest_csum,host_uso,guest_uso4,mrg_rxbuf",
                false,
                "csum,guest_csum,guest_uso4,mrg_rxbuf",
            ),
            ("none", false, "none"),
        ];
        for (text, has_room, expected) in rows {
            assert_eq!(alike(text, has_room), expected, "{text}");
        }
    }

    #[test]
    fn mistakes_name_what_is_missing_or_meant() {
        let rows = [
            ("host_tso4", "host_tso4 needs csum"),
            ("0x800", "host_tso4 needs csum"),
            ("-csum", "needs csum"),
            ("csum,host_ecn", "host_ecn needs host_tso4 or host_tso6"),
            ("host_uso", "host_uso needs csum"),
            ("guest_csum,guest_ecn", "guest_ecn needs guest_tso4 or guest_tso6"),
            ("guest_uso4", "guest_uso4 needs guest_csum"),
            ("csum,guest_tso6", "guest_tso6 needs guest_csum"),
            ("gso", "gso needs csum"),
            ("csum,gsoo", "did you mean gso?"),
            ("csum,none", "none, all, a mask"),
            ("-gso,csum", "changes only, such as +csum or -csum"),
            ("0x10000", "0x10000 is none of them"),
            ("0xzz", "none, all, a mask"),
            ("", "none, all, a mask"),
            ("mrg_rxbuf,big_packets", "exclude each other"),
        ];
        for (text, expected) in rows {
            let found = understood(text);
            assert!(found.starts_with("error: ") && found.contains(expected), "{text}: {found}");
        }
    }
}
