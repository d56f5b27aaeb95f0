//! Tests of the chain walker, against a naive one and against hostile drivers.

use proptest::prelude::*;

use super::*;
use crate::memory::region::Region;
use crate::nic::Lkey;
use crate::virtio::layout::OwnQueue;
use crate::virtio::ring::{DriverRing, SameThread, Shared};

const SIZE: u16 = 16;
/// Where the descriptors' addresses begin: not where the bytes lie.
const BASE: u64 = 0x10_0000;
const LENGTH: u32 = 4096;

/// A device ring over descriptors, with a region that holds `tables` at its start.
struct World<P: Policy> {
    device: DeviceRing<P>,
    regions: RegionTable,
    host: u64,
    _memory: Box<[u8]>,
    _queue: OwnQueue,
}

fn world<P: Policy>(descriptors: &[Descriptor], table: &[Descriptor]) -> World<P> {
    let mut queue = OwnQueue::new(SIZE).unwrap();
    // SAFETY: the queue is the last field of the world, so it is dropped after its views.
    let memory = unsafe { queue.memory() };
    let mut driver = DriverRing::<P>::new(memory.clone(), false);
    for (id, &descriptor) in descriptors.iter().enumerate() {
        driver.write(u16::try_from(id).unwrap(), descriptor);
    }
    let mut bytes = vec![0_u8; LENGTH as usize].into_boxed_slice();
    for (entry, descriptor) in table.iter().enumerate() {
        for (half, word) in descriptor.to_words().into_iter().enumerate() {
            let at = entry * 16 + half * 8;
            bytes[at..at + 8].copy_from_slice(&word.to_ne_bytes());
        }
    }
    let host = bytes.as_mut_ptr().expose_provenance() as u64;
    let mut regions = RegionTable::new();
    let region = Region { base: BASE, length: LENGTH.into(), host, lkey: Lkey(7) };
    // SAFETY: the bytes live as long as the world.
    unsafe { regions.insert(region) }.unwrap();
    World { device: DeviceRing::new(memory, false), regions, host, _memory: bytes, _queue: queue }
}

type Walked = Result<(u32, Vec<(u64, u32)>), ChainError>;

fn walk_all<P: Policy>(
    descriptors: &[Descriptor],
    table: &[Descriptor],
    head: u16,
    direction: Direction,
) -> Walked {
    let world = world::<P>(descriptors, table);
    let mut chain = Chain::new();
    let total = walk(&world.device, &world.regions, head, direction, &mut chain)?;
    let place = |s: &Segment| (s.sge().addr - world.host + BASE, s.length());
    Ok((total, chain.iter().map(place).collect()))
}

/// The same by recursion over plain data, as simply as possible.
fn naive(
    list: &[Descriptor],
    table: Option<&[Descriptor]>,
    at: u16,
    direction: Direction,
    ttl: u16,
) -> Walked {
    if ttl == 0 {
        return Err(ChainError::Loop);
    }
    let d = *list.get(usize::from(at)).ok_or(ChainError::Index)?;
    let inside = d.addr >= BASE
        && d.addr - BASE < u64::from(LENGTH)
        && d.addr - BASE + u64::from(d.len) <= u64::from(LENGTH);
    if d.flags & DESC_INDIRECT != 0 {
        let table = table.ok_or(ChainError::Table)?;
        let entries = (d.len / 16) as usize;
        let right = d.flags & DESC_NEXT == 0 && d.len % 16 == 0 && (1..=16).contains(&entries);
        if !right {
            return Err(ChainError::Table);
        }
        if !inside {
            return Err(ChainError::Address);
        }
        // Generated tables always begin at the region's start.
        return naive(&table[..entries], None, 0, direction, ttl - 1);
    }
    if (d.flags & DESC_WRITE != 0) != (direction == Direction::Writable) {
        return Err(ChainError::Direction);
    }
    if d.len > 0 && !inside {
        return Err(ChainError::Address);
    }
    let here = (d.len > 0).then_some((d.addr, d.len));
    if d.flags & DESC_NEXT == 0 {
        return Ok((d.len, here.into_iter().collect()));
    }
    let (total, rest) = naive(list, table, d.next, direction, ttl - 1)?;
    Ok((total + d.len, here.into_iter().chain(rest).collect()))
}

fn descriptor(table: bool) -> impl Strategy<Value = Descriptor> {
    let good = (0..4000_u64, 0..97_u32, prop_oneof![Just(0_u16), Just(1)], 0..18_u16);
    let good = good.prop_map(|(at, len, flags, next)| {
        let addr = BASE + at;
        Descriptor { addr, len, flags, next }
    });
    let odd = (
        prop_oneof![Just(0_u64), Just(u64::MAX), Just(BASE + 4095), Just(BASE)],
        prop_oneof![Just(0_u32), Just(1), Just(5000)],
        0..4_u16,
        any::<u16>(),
    );
    let odd = odd.prop_map(|(addr, len, flags, next)| Descriptor { addr, len, flags, next });
    let indirect = (prop_oneof![Just(4_u16), Just(4), Just(4), Just(5), Just(6)], 0..20_u32);
    let indirect = indirect.prop_map(move |(flags, entries)| Descriptor {
        addr: BASE,
        len: if entries == 19 { 24 } else { entries * 16 },
        flags,
        next: 0,
    });
    let weight = if table { 1 } else { 4 };
    prop_oneof![40 => good, 1 => odd, weight => indirect]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn the_walker_agrees_with_a_naive_one(
        descriptors in proptest::collection::vec(descriptor(false), 16),
        table in proptest::collection::vec(descriptor(true), 20),
        head in 0..18_u16,
        writable in any::<bool>(),
    ) {
        let direction = if writable { Direction::Writable } else { Direction::Readable };
        let expected = naive(&descriptors, Some(&table), head, direction, SIZE);
        prop_assert_eq!(
            &walk_all::<SameThread>(&descriptors, &table, head, direction), &expected);
        prop_assert_eq!(&walk_all::<Shared>(&descriptors, &table, head, direction), &expected);
    }
}

#[test]
fn hostile_chains_are_refused_by_their_rule_virtio_2_7_5() {
    let d = |addr, len, flags, next| Descriptor { addr, len, flags, next };
    let good = d(BASE, 64, 0, 0);
    let rows: [(&str, Vec<Descriptor>, Vec<Descriptor>, ChainError); 12] = [
        ("loop of one", vec![d(BASE, 64, 1, 0)], vec![], ChainError::Loop),
        ("loop of two", vec![d(BASE, 1, 1, 1), d(BASE, 1, 1, 0)], vec![], ChainError::Loop),
        ("link out of range", vec![d(BASE, 64, 1, 16)], vec![], ChainError::Index),
        ("below the region", vec![d(BASE - 1, 64, 0, 0)], vec![], ChainError::Address),
        ("across its end", vec![d(BASE + 4090, 7, 0, 0)], vec![], ChainError::Address),
        ("wrapping", vec![d(u64::MAX - 3, 64, 0, 0)], vec![], ChainError::Address),
        ("huge", vec![d(BASE, u32::MAX, 1, 1), good], vec![], ChainError::Address),
        ("writable", vec![d(BASE, 64, 2, 0)], vec![], ChainError::Direction),
        ("indirect with next", vec![d(BASE, 16, 5, 1), good], vec![good], ChainError::Table),
        ("empty table", vec![d(BASE, 0, 4, 0)], vec![], ChainError::Table),
        ("table in a table", vec![d(BASE, 16, 4, 0)], vec![d(BASE, 16, 4, 0)], ChainError::Table),
        ("loop in a table", vec![d(BASE, 16, 4, 0)], vec![d(BASE, 1, 1, 0)], ChainError::Loop),
    ];
    for (name, descriptors, table, error) in rows {
        let found = walk_all::<Shared>(&descriptors, &table, 0, Direction::Readable);
        assert_eq!(found, Err(error), "{name}");
        let found = walk_all::<SameThread>(&descriptors, &table, 0, Direction::Readable);
        assert_eq!(found, Err(error), "{name}");
    }
    assert_eq!(
        walk_all::<Shared>(&[good], &[], 16, Direction::Readable),
        Err(ChainError::Index),
        "head out of range"
    );
}
