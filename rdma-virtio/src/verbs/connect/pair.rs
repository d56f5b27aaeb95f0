//! Queue pairs on their way to ready, as the connection manager says (rdma_init_qp_attr(3)).

use super::{Identifier, check};
use crate::nic::DeviceError;
use crate::verbs::queue_pair::{Init, QueuePair, QueuePairKind, Reset, Rtr, Rts};
use crate::verbs::sys::{self, Zero};
use crate::verbs::transition::{ReceiveAttributes, SendAttributes};

type Modification = (sys::ibv_qp_attr, sys::ibv_qp_attr_mask);

impl Identifier {
    /// What to set in a queue pair to bring it to `state`.
    fn attributes(&self, state: sys::ibv_qp_state) -> Result<Modification, DeviceError> {
        let mut attr = sys::ibv_qp_attr::zero();
        attr.qp_state = state;
        let mut mask = 0;
        let ask = self.table().rdma_init_qp_attr;
        // SAFETY: the identifier lives; places for attributes and mask.
        let result = unsafe { ask(self.id.as_ptr(), &mut attr, &mut mask) };
        check("rdma_init_qp_attr", result)?;
        Ok((attr, sys::ibv_qp_attr_mask::try_from(mask).unwrap_or(0)))
    }
}

impl QueuePair<Reset> {
    /// To init, for the connection of this identifier. Peers may send, not read or write.
    ///
    /// # Errors
    /// If the identifier has no device yet, or the device refuses.
    pub fn init_for(self, identifier: &Identifier) -> Result<QueuePair<Init>, DeviceError> {
        let (mut attr, mask) = identifier.attributes(sys::IBV_QPS_INIT)?;
        attr.qp_access_flags = 0;
        self.to(&mut attr, mask)
    }
}

impl QueuePair<Init> {
    /// To ready to receive, for the connection of this identifier. `min_rnr_timer` is coded as in
    /// ibv_modify_qp(3); the connection manager's own is 655 ms.
    ///
    /// # Errors
    /// If the peer is not known yet, or the device refuses.
    pub fn rtr_for(
        self,
        identifier: &Identifier,
        min_rnr_timer: u8,
    ) -> Result<QueuePair<Rtr>, DeviceError> {
        // Of datagrams the kernel repeats the attributes of init, which are wrong here.
        if self.kind() == QueuePairKind::Ud {
            return self.rtr(&ReceiveAttributes::Unconnected);
        }
        let (mut attr, mask) = identifier.attributes(sys::IBV_QPS_RTR)?;
        attr.min_rnr_timer = min_rnr_timer;
        self.to(&mut attr, mask)
    }
}

impl QueuePair<Rtr> {
    /// To ready to send, for the connection of this identifier. `timeout` replaces the connection
    /// manager's, coded as in ibv_modify_qp(3); without meaning for datagrams.
    ///
    /// # Errors
    /// If the peer is not known yet, or the device refuses.
    pub fn rts_for(
        self,
        identifier: &Identifier,
        timeout: u8,
    ) -> Result<QueuePair<Rts>, DeviceError> {
        if self.kind() == QueuePairKind::Ud {
            return self.rts(&SendAttributes::Datagram { psn: 0 });
        }
        let (mut attr, mask) = identifier.attributes(sys::IBV_QPS_RTS)?;
        attr.timeout = timeout;
        self.to(&mut attr, mask)
    }
}
