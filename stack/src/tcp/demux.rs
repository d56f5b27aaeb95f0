//! From addresses and ports to the endpoint: a hash table keyed with a secret (SipHash-1-3), so
//! that a peer cannot choose colliding ports.

use core::hash::Hasher;
use core::net::IpAddr;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use super::tuple::FourTuple;

/// What a four-tuple leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Endpoint {
    /// A connection, by slab index.
    Connection(u32),
    /// A compact TIME-WAIT, by slab index.
    TimeWait(u32),
}

/// The table. It stores indices only: the owner tells the tuple of an endpoint.
pub(super) struct Demux {
    table: HashTable<Endpoint>,
    key: [u8; 16],
}

impl Demux {
    /// An empty table with its secret.
    pub(super) fn new(key: [u8; 16]) -> Demux {
        Demux { table: HashTable::new(), key }
    }

    /// The keyed hash of a tuple.
    #[inline]
    pub(super) fn hash(&self, tuple: &FourTuple) -> u64 {
        hash_tuple(&self.key, tuple)
    }

    /// The endpoint of a tuple; `tuple_of` tells the tuple of a candidate.
    #[inline]
    pub(super) fn find(
        &self,
        tuple: &FourTuple,
        tuple_of: impl Fn(Endpoint) -> Option<FourTuple>,
    ) -> Option<Endpoint> {
        let hash = self.hash(tuple);
        self.table.find(hash, |&candidate| tuple_of(candidate).as_ref() == Some(tuple)).copied()
    }

    /// Adds an endpoint; the tuple must not be in the table.
    pub(super) fn insert(
        &mut self,
        tuple: &FourTuple,
        endpoint: Endpoint,
        tuple_of: impl Fn(Endpoint) -> Option<FourTuple>,
    ) {
        let key = self.key;
        let _entry = self.table.insert_unique(hash_tuple(&key, tuple), endpoint, |&other| {
            tuple_of(other).map_or(0, |tuple| hash_tuple(&key, &tuple))
        });
    }

    /// Forgets an endpoint.
    pub(super) fn remove(&mut self, tuple: &FourTuple, endpoint: Endpoint) {
        if let Ok(entry) = self.table.find_entry(self.hash(tuple), |&other| other == endpoint) {
            let _removed = entry.remove();
        }
    }
}

/// SipHash-1-3 of a tuple; 64 bits.
pub(super) fn hash_tuple(key: &[u8; 16], tuple: &FourTuple) -> u64 {
    let mut hasher = SipHasher13::new_with_key(key);
    match (tuple.local, tuple.remote) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => {
            hasher.write_u64(u64::from(local.to_bits()) << 32 | u64::from(remote.to_bits()));
        }
        (local, remote) => {
            for address in [local, remote] {
                match address {
                    IpAddr::V4(v4) => hasher.write_u32(v4.to_bits()),
                    IpAddr::V6(v6) => hasher.write_u128(v6.to_bits()),
                }
            }
        }
    }
    hasher.write_u32(u32::from(tuple.local_port) << 16 | u32::from(tuple.remote_port));
    hasher.finish()
}
