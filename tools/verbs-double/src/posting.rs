//! What post_send and post_recv refuse at once, with the rule's source. What only the device can
//! see (keys, bounds, lengths on the wire) is found when the request is executed and completes in
//! error.

use crate::abi::consts::*;
use crate::abi::work::{SendWr, Sge};
use crate::memory;
use crate::queue_pair::{Data, SendWqe};
use crate::shared_receive::RecvWqe;
use crate::world::World;

/// A send as it was posted, its lists copied.
pub(crate) struct Posted {
    /// The request.
    pub(crate) wr: SendWr,
    /// Its SGEs; the count that the request states may be wrong.
    pub(crate) sges: Vec<Sge>,
    /// Handle of the address handle that it names.
    pub(crate) ah: Option<u32>,
    /// Inline data that was already copied, by `ibv_wr_set_inline_data`.
    pub(crate) inline: Option<Vec<u8>>,
}

/// Opcodes of each transport: the table of ibv_post_send(3), without those whose capability
/// (atomics, memory windows) the device does not claim.
fn opcode_allowed(kind: u32, opcode: u32) -> bool {
    match opcode {
        WR_SEND => true,
        WR_SEND_WITH_IMM => kind != QPT_RAW_PACKET,
        WR_RDMA_WRITE | WR_RDMA_WRITE_WITH_IMM | WR_RDMA_READ => kind == QPT_RC,
        WR_TSO => kind == QPT_RAW_PACKET,
        _ => false,
    }
}

/// Flags of ibv_post_send(3) and what each is valid for.
fn flags_allowed(kind: u32, wr: &SendWr, checksums: bool) -> bool {
    let known = SEND_FENCE | SEND_SIGNALED | SEND_SOLICITED | SEND_INLINE | SEND_IP_CSUM;
    let has = |flag: u32| wr.send_flags & flag != 0;
    let sends = matches!(wr.opcode, WR_SEND | WR_SEND_WITH_IMM);
    let writes = matches!(wr.opcode, WR_RDMA_WRITE | WR_RDMA_WRITE_WITH_IMM);
    wr.send_flags & !known == 0
        && (!has(SEND_FENCE) || kind == QPT_RC)
        && (!has(SEND_SOLICITED) || sends || wr.opcode == WR_RDMA_WRITE_WITH_IMM)
        && (!has(SEND_INLINE) || sends || writes)
        && (!has(SEND_IP_CSUM) || (kind == QPT_RAW_PACKET && checksums))
}

fn total(sges: &[Sge]) -> u64 {
    sges.iter().map(|sge| u64::from(sge.length)).sum()
}

impl World {
    /// Posts one send without executing it.
    ///
    /// # Errors
    /// `EINVAL` for a request that the queue pair cannot take in this state or at all, `ENOMEM`
    /// for a full queue: its places come back only when a signalled completion behind them is
    /// polled. `EIO` if the device is gone.
    pub(crate) fn post_send(&mut self, handle: u32, posted: Posted) -> Result<(), i32> {
        let wqe = self.admit(handle, posted)?;
        let qp = self.qps.get_mut(handle).ok_or(libc::EINVAL)?;
        let counters = &mut self.counters;
        counters.send_requests += 1;
        counters.send_signalled += u64::from(qp.signal_all || wqe.flags & SEND_SIGNALED != 0);
        counters.send_tso += u64::from(wqe.opcode == WR_TSO);
        counters.send_csum += u64::from(wqe.flags & SEND_IP_CSUM != 0);
        match &wqe.data {
            Data::Inline(bytes) => {
                counters.send_inline += 1;
                counters.send_bytes += u64::try_from(bytes.len()).unwrap_or(0);
            }
            Data::Sges(sges) => {
                counters.send_sges += u64::try_from(sges.len()).unwrap_or(0);
                counters.send_bytes += total(sges);
            }
        }
        qp.send_posted += 1;
        qp.sends.push_back(wqe);
        self.ready.push_back(handle);
        Ok(())
    }

    fn admit(&mut self, handle: u32, posted: Posted) -> Result<SendWqe, i32> {
        let Posted { wr, sges, ah, inline } = posted;
        let qp = self.qps.get(handle).ok_or(libc::EINVAL)?;
        let device = self.devices.get(qp.device).ok_or(libc::EINVAL)?;
        if device.dead {
            return Err(libc::EIO);
        }
        // The queue pair takes sends from RTS on; in SQE and ERR they are flushed.
        if matches!(qp.state, QPS_RESET | QPS_INIT | QPS_RTR) {
            return Err(libc::EINVAL);
        }
        let count_holds = usize::try_from(wr.num_sge).is_ok_and(|count| count == sges.len());
        let max = usize::try_from(qp.cap.max_send_sge).unwrap_or(0);
        let allowed =
            opcode_allowed(qp.kind, wr.opcode) && flags_allowed(qp.kind, &wr, device.checksums());
        if !count_holds || sges.len() > max || !allowed {
            return Err(libc::EINVAL);
        }
        let mut wqe = SendWqe {
            wr_id: wr.wr_id,
            opcode: wr.opcode,
            flags: wr.send_flags,
            data: Data::Sges(Vec::new()),
            immediate: wr.imm_data,
            remote: wr.rdma(),
            datagram: (0, 0, 0),
            header: Vec::new(),
            mss: 0,
            sequence: qp.send_posted,
            psn: None,
            verdict: None,
        };
        if wr.opcode == WR_TSO {
            if !device.segments(qp.kind) {
                return Err(libc::EINVAL);
            }
            (wqe.header, wqe.mss) = tso_header(&wr, qp.tso_header_max)?;
        }
        if qp.kind == QPT_UD {
            let (_, number, key) = wr.ud();
            let ah = ah.ok_or(libc::EINVAL)?;
            let same = self.addresses.get(ah).is_some_and(|known| known.pd == qp.pd);
            if !same {
                return Err(libc::EINVAL);
            }
            wqe.datagram = (ah, number, key);
        }
        wqe.data = data(&wr, sges, inline, qp.cap.max_inline_data)?;
        if qp.send_posted - qp.send_freed >= u64::from(qp.cap.max_send_wr) {
            return Err(libc::ENOMEM);
        }
        Ok(wqe)
    }

    fn check_recv(&self, device: usize, sges: usize, max: u32) -> Result<(), i32> {
        if self.devices.get(device).is_none_or(|device| device.dead) {
            return Err(libc::EIO);
        }
        // ibv_create_qp(3): max_recv_sge is the most s/g elements of a request.
        if sges > usize::try_from(max).unwrap_or(0) {
            return Err(libc::EINVAL);
        }
        Ok(())
    }

    fn count_recv(&mut self, sges: usize) {
        self.counters.recv_requests += 1;
        self.counters.recv_sges += u64::try_from(sges).unwrap_or(0);
    }

    /// Posts one receive to a queue pair.
    ///
    /// # Errors
    /// `EINVAL` in RESET, with too many SGEs, or if the queue pair has a shared receive queue
    /// (ibv_post_recv(3)); `ENOMEM` for a full queue.
    pub(crate) fn post_recv(&mut self, handle: u32, wqe: RecvWqe) -> Result<(), i32> {
        let qp = self.qps.get(handle).ok_or(libc::EINVAL)?;
        self.check_recv(qp.device, wqe.sges.len(), qp.cap.max_recv_sge)?;
        if qp.state == QPS_RESET || qp.srq.is_some() {
            return Err(libc::EINVAL);
        }
        if qp.recv_outstanding >= qp.cap.max_recv_wr {
            return Err(libc::ENOMEM);
        }
        let flush = qp.state == QPS_ERR;
        self.count_recv(wqe.sges.len());
        if let Some(qp) = self.qps.get_mut(handle) {
            qp.recv_outstanding += 1;
            qp.receives.push_back(wqe);
        }
        if flush {
            self.flush_receives(handle);
        }
        Ok(())
    }

    /// Posts one receive to a shared queue.
    ///
    /// # Errors
    /// As [`World::post_recv`].
    pub(crate) fn post_srq_recv(&mut self, handle: u32, wqe: RecvWqe) -> Result<(), i32> {
        let srq = self.srqs.get(handle).ok_or(libc::EINVAL)?;
        self.check_recv(srq.device, wqe.sges.len(), srq.max_sge)?;
        if srq.outstanding >= srq.max_wr {
            return Err(libc::ENOMEM);
        }
        self.count_recv(wqe.sges.len());
        if let Some(srq) = self.srqs.get_mut(handle) {
            srq.outstanding += 1;
            srq.queue.push_back(wqe);
        }
        Ok(())
    }
}

/// The header of a TSO request: at least Ethernet's, at most what the queue pair was made for
/// (ibv_create_qp_ex(3), `max_tso_header`), and a segment size (ibv_post_send(3), `mss`).
fn tso_header(wr: &SendWr, max: u16) -> Result<(Vec<u8>, u16), i32> {
    let (address, length, mss) = wr.tso();
    if address == 0 || !(14..=max).contains(&length) || mss == 0 {
        return Err(libc::EINVAL);
    }
    let mut header = Vec::new();
    // SAFETY: the program passes `hdr_sz` bytes at `hdr` (ibv_post_send(3)).
    unsafe { memory::fetch_inline(address, usize::from(length), &mut header) };
    Ok((header, mss))
}

/// The payload; inline bytes are read now, up to the limit, their keys unchecked.
fn data(wr: &SendWr, sges: Vec<Sge>, inline: Option<Vec<u8>>, max: u32) -> Result<Data, i32> {
    if let Some(bytes) = inline {
        let fits = u32::try_from(bytes.len()).is_ok_and(|length| length <= max);
        return if fits { Ok(Data::Inline(bytes)) } else { Err(libc::EINVAL) };
    }
    if wr.send_flags & SEND_INLINE == 0 {
        return Ok(Data::Sges(sges));
    }
    if total(&sges) > u64::from(max) {
        return Err(libc::EINVAL);
    }
    let mut bytes = Vec::new();
    for sge in sges.iter().filter(|sge| sge.length > 0) {
        let length = usize::try_from(sge.length).map_err(|_| libc::EINVAL)?;
        // SAFETY: the program passes `length` bytes at `addr` (ibv_post_send(3)).
        unsafe { memory::fetch_inline(sge.addr, length, &mut bytes) };
    }
    Ok(Data::Inline(bytes))
}
