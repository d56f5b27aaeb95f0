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
/// Segmentation in software, as late as can be: of everything, and of datagrams alone.
const GSO: &str = "gso";
const GSO_USO: &str = "gso_uso";
/// Joining of received segments in software, as early as can be.
const GRO: &str = "gro";
/// Receive buffers for the largest packet instead of ones that are merged.
const BIG_PACKETS: &str = "big_packets";
/// UDP fragmentation offload, which is never offered; [`UFO_BITS`] of LKL's mask.
const UFO: [&str; 2] = ["guest_ufo", "host_ufo"];
const UFO_BITS: u64 = 1 << 10 | 1 << 14;

/// What software cuts, last, of what the device does not cut. That TCP alone is cut by it is no
/// state: a stream's segments cost less laid out by the stack, datagrams of a call cost more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gso {
    /// Nothing: the stack cuts.
    Nothing,
    /// Several datagrams of a call; TCP is cut by the stack.
    Datagrams,
    /// Both.
    All,
}

impl Gso {
    /// What software segments as a device would.
    const fn features(self) -> Features {
        match self {
            Gso::Nothing => Features::NONE,
            Gso::Datagrams => Features::HOST_USO,
            Gso::All => Features::HOST_LARGE,
        }
    }

    fn name(self) -> Option<&'static str> {
        match self {
            Gso::Nothing => None,
            Gso::Datagrams => Some(GSO_USO),
            Gso::All => Some(GSO),
        }
    }
}

/// Which offloads are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OffloadWish {
    features: Features,
    gso: Gso,
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

/// All that a device can, and in software what was seen to pay. Joining does not: one frame more
/// or less costs the stack less. Cutting does for datagrams, and not for TCP, which lays a write
/// out in the segments that leave.
impl Default for OffloadWish {
    fn default() -> OffloadWish {
        OffloadWish { gso: Gso::Datagrams, gro: false, ..OffloadWish::ALL }
    }
}

impl OffloadWish {
    /// Every name that can be switched on its own.
    pub const NAMES: [&'static str; NAMES.len() + 3] = {
        let mut names = [GSO; NAMES.len() + 3];
        let mut place = 0;
        while place < NAMES.len() {
            names[place] = NAMES[place].0;
            place += 1;
        }
        names[NAMES.len() + 1] = GSO_USO;
        names[NAMES.len() + 2] = GRO;
        names
    };

    /// Nothing: checksums and segments are the stack's own, and packets fit a buffer.
    pub const NONE: OffloadWish =
        OffloadWish { features: Features::NONE, gso: Gso::Nothing, gro: false };

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
        gso: Gso::All,
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
        let has = |name: &str| words.iter().any(|word| word.trim_start_matches('+') == name);
        for (one, other) in [(BIG_PACKETS, "mrg_rxbuf"), (GSO, GSO_USO)] {
            if has(one) && has(other) {
                return Err(format!("one of {one} and {other}: they exclude each other"));
            }
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
            (GSO, _) => self.gso = if on { Gso::All } else { Gso::Nothing },
            (GSO_USO, _) => self.gso = if on { Gso::Datagrams } else { Gso::Nothing },
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
        match self.gso.name() {
            Some(name) if !self.features.has(Features::CSUM) => Err(format!("{name} needs csum")),
            _ => Ok(()),
        }
    }

    /// What software segments of what the device does not.
    #[must_use]
    pub fn gso(&self) -> Gso {
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
        self.features = without_lone_ecn(self.features);
        self
    }

    /// What a device with these capabilities is asked for.
    pub(crate) fn for_device(&self, nic: &Capabilities) -> Wish {
        let native = Features::native(nic);
        let by_software = self.gso.features();
        // What software does not cut it does not do at all: the stack does it at less cost. A
        // checksum in software is for what is cut.
        let by_device = Features::HOST_LARGE.without(by_software);
        let by_device = match self.gso {
            Gso::Nothing => by_device.with(Features::CSUM),
            Gso::Datagrams | Gso::All => by_device,
        };
        let asked = self.features.with(BASE).with(by_software).without(by_device.without(native));
        Wish { features: without_lone_ecn(asked), software: by_software.without(self.features) }
    }
}

/// Congestion marks on large frames make no sense where none of TCP are left.
fn without_lone_ecn(features: Features) -> Features {
    if features.has(Features::HOST_TSO4.with(Features::HOST_TSO6)) {
        return features;
    }
    features.without(Features::HOST_ECN)
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
    Ok(OffloadWish { features: Features(mask & !UFO_BITS), gso: Gso::Nothing, gro: false })
}

fn all_names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name).chain([GSO, GSO_USO, GRO, BIG_PACKETS])
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
        names.extend(self.gso.name());
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
        let software = wish.gso.features().and(features).without(native);
        let in_use = features.without(software);
        let mut names: Vec<&str> = named(in_use).collect();
        names.extend(wish.gso.name().filter(|_| software != Features::NONE));
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
    use roceway_rdma_virtio::nic::Nic;
    use roceway_rdma_virtio::nic::soft::{SoftNic, SoftOptions};

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
            ("-gso_uso", without(&["gso"])),
            ("+gso_uso", all.replace("gso", "gso_uso")),
            ("-gro,-gso,+gso_uso", OffloadWish::default().to_string()),
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
            ("csum,gso_uso", "csum,gso_uso"),
            ("csum,gso,-gso", "csum"),
            ("csum,gso_uso,-gso", "csum"),
            ("csum,gso,-gso_uso", "csum"),
            ("none,+csum,-gso,+gso_uso", "csum,gso_uso"),
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
    fn sets_are_understood_as_they_are_shown() {
        for wish in [OffloadWish::NONE, OffloadWish::ALL, OffloadWish::default()] {
            assert_eq!(wish.check(), Ok(()));
            let shown = wish.to_string();
            let again = OffloadWish::parse(&shown, OffloadWish::ALL).unwrap().wish;
            assert_eq!(again, wish, "{shown}");
        }
        for name in OffloadWish::NAMES {
            let alone = OffloadWish::parse(&format!("csum,guest_csum,{name}"), OffloadWish::NONE);
            let Ok(Understood { wish, .. }) = alone else { continue };
            assert!(wish.to_string().split(',').any(|shown| shown == name), "{name}: {wish}");
        }
        assert_eq!(OffloadWish::default().gso(), Gso::Datagrams);
        assert_eq!(OffloadWish::ALL.gso(), Gso::All);
    }

    /// What a NIC is asked for beyond checksums that segments or not, and computes sums or not.
    #[test]
    fn software_is_asked_for_what_it_is_to_cut() {
        let tso = Features::HOST_TSO4.with(Features::HOST_TSO6).with(Features::HOST_ECN);
        let (uso, large) = (Features::HOST_USO, Features::HOST_LARGE);
        let (nothing, ecn) = (Features::NONE, Features::HOST_ECN);
        // Large features that the device does, text, those asked for, of them never the device's.
        let rows = [
            (nothing, "all,-gro,+gso_uso", uso, nothing),
            (nothing, "all,-gro", large, nothing),
            (nothing, "all,-gso", nothing, nothing),
            (nothing, "csum,gso_uso", uso, uso),
            (nothing, "csum,gso", large, large),
            (tso, "all,-gro,+gso_uso", large, nothing),
            (tso, "csum,gso_uso", uso, uso),
            (tso, "all,-gso", tso, nothing),
            (tso, "csum,host_tso4,gso", large, large.without(Features::HOST_TSO4)),
            (large, "all,-gro,+gso_uso", large, nothing),
            (large, "csum,host_tso6,gso_uso", Features::HOST_TSO6.with(uso), uso),
            // Marks of a family that the device does not segment.
            (Features::HOST_TSO6.with(ecn), "csum,host_tso4,host_ecn,gso_uso", uso, uso),
        ];
        let (nic, _other) = SoftNic::pair(&SoftOptions::default()).unwrap();
        for (does, text, asked, software) in rows {
            let wish = OffloadWish::parse(text, OffloadWish::NONE).unwrap().wish;
            let nic = Capabilities {
                tx_checksum: true,
                tso4: does.has(Features::HOST_TSO4),
                tso6: does.has(Features::HOST_TSO6),
                tso_ecn: does.has(ecn),
                uso: does.has(uso),
                ..nic.capabilities().clone()
            };
            let found = wish.for_device(&nic);
            assert_eq!(found.features.and(large), asked, "{text} over {does:?}");
            assert_eq!(found.software, software, "{text} over {does:?}");
            assert_eq!(found.features.check(), Ok(()), "{text} over {does:?}");
            let without_sums = Capabilities { tx_checksum: false, ..nic };
            let found = wish.for_device(&without_sums);
            assert_eq!(found.features.and(large), wish.gso().features(), "{text} without sums");
            assert_eq!(found.features.has(Features::CSUM), wish.gso() != Gso::Nothing, "{text}");
            assert_eq!(found.features.check(), Ok(()), "{text} without sums");
        }
    }

    #[test]
    fn what_software_cuts_is_shown_by_the_name_it_was_asked_for_by() {
        let used = |text: &str, features: Features, native: Features| {
            let wish = OffloadWish::parse(text, OffloadWish::NONE).unwrap().wish;
            OffloadsInUse::new(wish, features, native).to_string()
        };
        let (csum, uso) = (Features::CSUM, Features::HOST_USO);
        let rows = [
            (used("csum,gso_uso", csum.with(uso), csum), "csum,gso_uso"),
            (used("csum,gso", csum.with(Features::HOST_LARGE), csum), "csum,gso"),
            (
                used("csum,gso_uso", csum.with(uso), Features::NONE),
                "csum,gso_uso (csum in software)",
            ),
            (used("csum,host_uso,gso_uso", csum.with(uso), csum.with(uso)), "csum,host_uso"),
            (
                used("csum,host_tso4,host_uso,gso_uso", csum.with(uso), csum),
                "csum,gso_uso (not offered: host_tso4,host_uso)",
            ),
        ];
        for (found, expected) in rows {
            assert_eq!(found, expected);
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
            ("csum,host_uso,gso_uso", false, "csum,gso_uso"),
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
            ("gso_uso", "gso_uso needs csum"),
            ("csum,gso,gso_uso", "one of gso and gso_uso: they exclude each other"),
            ("+gso,+gso_uso", "one of gso and gso_uso"),
            ("csum,gsoo", "did you mean gso?"),
            ("csum,gso-uso", "did you mean gso_uso?"),
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
