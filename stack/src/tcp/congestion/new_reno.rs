//! Slow start and congestion avoidance of RFC 5681, with byte counting (RFC 3465).
//!
//! Owns the additive increase and the halving. The retransmission half of NewReno (RFC 6582) is
//! in `tcp::recovery`.

use super::{AckSample, Timeout, Window};

/// The state of RFC 5681.
#[derive(Clone, Debug)]
pub struct NewReno {
    pub(super) window: Window,
    /// Bytes acknowledged towards the next increase (RFC 3465 §2.1).
    bytes_acked: u32,
}

impl NewReno {
    pub(super) fn new(window: Window) -> NewReno {
        NewReno { window, bytes_acked: 0 }
    }

    #[inline]
    pub(super) fn on_ack(&mut self, ack: &AckSample) {
        if !ack.cwnd_limited || self.window.is_full() {
            return;
        }
        let acked = self.window.slow_start(ack.acked);
        if acked == 0 {
            return;
        }
        // One segment a window: at most one increase an acknowledgement, the rest carries over.
        let counted = self.bytes_acked.saturating_add(acked);
        if counted >= self.window.cwnd {
            self.bytes_acked = (counted - self.window.cwnd).min(self.window.cwnd);
            self.window.grow(self.window.mss);
        } else {
            self.bytes_acked = counted;
        }
    }

    pub(super) fn on_congestion_event(&mut self, flight: u32) {
        self.window.reduce(flight / 2);
        self.bytes_acked = 0;
    }

    pub(super) fn on_retransmission_timeout(&mut self, flight: u32, timeout: Timeout) {
        self.window.collapse(flight / 2, timeout);
        self.bytes_acked = 0;
    }
}
