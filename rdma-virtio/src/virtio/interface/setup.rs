//! What is decided and laid out once, before an interface exists: features, receive layout, queues.

use std::ptr::NonNull;

use super::LARGE_PACKET_LEN;
use crate::memory::arena::{Arena, ArenaError, RegisterError};
use crate::memory::mapping::MappingError;
use crate::memory::region::{Region, RegionError, RegionTable};
use crate::nic::{Accepted, Capabilities, DeviceError, Nic, Receive, RegionView, Wire};
use crate::virtio::driver::{IndirectTables, PIECES_MAX, ReceiveLayout};
use crate::virtio::features::{FeatureError, Features};
use crate::virtio::layout::{QueueLayout, QueueMemory, QueueSizeError};
use crate::virtio::net_header::NET_HEADER_LEN;

/// Why there is no interface.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The memory.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// The NIC.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The features.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// The queues.
    #[error(transparent)]
    QueueSize(#[from] QueueSizeError),
    /// A mapping.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// Memory of the application's own.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The region table.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// A packet of the NIC's MTU does not fit the receive buffers.
    #[error(
        "{device}: packets of {mtu} bytes need {needed} receive slots of {receive_len} bytes each, \
         but {allowed} are possible; choose a larger memory.receive_len"
    )]
    ReceiveSlots {
        /// The device as the user named it.
        device: String,
        /// Its MTU.
        mtu: u16,
        /// Slots that a packet needs.
        needed: u32,
        /// Bytes of one.
        receive_len: u32,
        /// Slots that a packet may have.
        allowed: u32,
    },
}

/// Where queues and tables lie in the arena's private part.
pub(super) struct Places {
    pub(super) transmit: QueueMemory,
    pub(super) receive: QueueMemory,
    pub(super) tables: IndirectTables,
}

impl Places {
    pub(super) fn of(arena: &Arena, queue_size: u16) -> Result<Places, QueueSizeError> {
        let (addr, _) = arena.private();
        let step = u64::from(QueueLayout::of(queue_size).length);
        let place = |offset: u64| {
            let addr = usize::try_from(addr + offset).map_err(|_| QueueSizeError(queue_size))?;
            Ok(addr)
        };
        let queue = |offset: u64| {
            let base = std::ptr::with_exposed_provenance_mut::<u8>(place(offset)?);
            let base = NonNull::new(base).ok_or(QueueSizeError(queue_size))?;
            // SAFETY: the private part is page-aligned, long enough for two queues and the tables
            // (`NetInterface::new`), and lives as long as the interface that owns both halves.
            unsafe { QueueMemory::at(base, queue_size) }
        };
        let tables_at = 2 * step;
        // SAFETY: behind the two queues; see above.
        let tables =
            unsafe { IndirectTables::new(place(tables_at)?, addr + tables_at, queue_size) };
        Ok(Places { transmit: queue(0)?, receive: queue(step)?, tables })
    }
}

/// Makes a region of the arena, or of memory that the arena is to adopt, known to the NIC and to
/// the device half.
pub(super) fn register<N: Nic>(
    nic: &mut N,
    regions: &mut RegionTable,
    view: RegionView,
) -> Result<(), InterfaceError> {
    // SAFETY: the arena outlives the NIC in `NetInterface`, whose fields are dropped in order, and
    // what it adopted is deregistered before it is unmapped; a posted receive slot is a
    // `PostedSlot`, which gives no access to its bytes.
    let lkey = unsafe { nic.register(view) }?;
    let region = Region { base: view.addr, length: view.length, host: view.addr, lkey };
    // SAFETY: the range is mapped read-write until it is removed from both, or the interface ends.
    let inserted = unsafe { regions.insert(region) };
    inserted.inspect_err(|_| nic.deregister(lkey))?;
    Ok(())
}

/// What the driver takes, as the NIC is told.
pub(super) fn accepted(features: Features) -> Accepted {
    Accepted {
        checksum: features.has(Features::GUEST_CSUM),
        large4: features.has(Features::GUEST_TSO4),
        large6: features.has(Features::GUEST_TSO6),
        ecn: features.has(Features::GUEST_ECN),
        uso4: features.has(Features::GUEST_USO4),
        uso6: features.has(Features::GUEST_USO6),
    }
}

/// Which features are taken, and how receive buffers lie for them.
pub(super) fn plan_receive(
    nic: &Capabilities,
    receive_len: u32,
    wanted: Features,
    queue_size: u16,
) -> Result<(Features, ReceiveLayout), InterfaceError> {
    let one_thread = Features::offered(nic).without(Features::EVENT_IDX);
    let mut features = Features::accept(one_thread, wanted.and(one_thread))?;
    // A VLAN tag may come on top of the MTU.
    let ordinary = u32::from(nic.mtu) + 14 + 4 + NET_HEADER_LEN;
    // Without a header in the message, further buffers would begin 12 bytes late.
    let spanning = nic.receive == Receive::Spanning && nic.wire == Wire::VirtioNet;
    loop {
        let large = features.has(Features::GUEST_LARGE);
        let longest = if large { ordinary.max(LARGE_PACKET_LEN) } else { ordinary };
        let needed = longest.div_ceil(receive_len);
        let mergeable = features.has(Features::MRG_RXBUF) && (spanning || needed == 1);
        let mut allowed = u32::try_from(PIECES_MAX).unwrap_or(u32::MAX);
        if !mergeable {
            allowed = allowed.min(nic.max_recv_sge.into()).min(queue_size.into());
        }
        if needed <= allowed {
            if !mergeable {
                features = features.without(Features::MRG_RXBUF);
            }
            let slots = if mergeable { 1 } else { u16::try_from(needed).unwrap_or(u16::MAX) };
            let work_requests = u16::try_from(nic.max_recv_wr).unwrap_or(u16::MAX);
            let posted_max = (queue_size / slots).min(work_requests).max(1);
            return Ok((features, ReceiveLayout { mergeable, slots, posted_max }));
        }
        if !large {
            return Err(InterfaceError::ReceiveSlots {
                device: nic.name.clone(),
                mtu: nic.mtu,
                needed,
                receive_len,
                allowed,
            });
        }
        features = features.without(Features::GUEST_LARGE.with(Features::GUEST_ECN));
    }
}
