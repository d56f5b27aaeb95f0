//! A completion: how a work request ended.
//!
//! Owns the reading of `ibv_wc`. After an error only the id, the status, the queue pair's number
//! and the vendor's code are valid (ibv_poll_cq(3)).

use super::completion;
use super::sys;
use std::fmt;

/// How a work request ended (`ibv_wc_status`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CompletionStatus {
    /// Done.
    Success,
    /// A message was longer than the receive, or than the queue pair can send.
    LocalLength,
    /// The request was inconsistent with the queue pair.
    LocalOperation,
    /// A local memory check failed.
    LocalProtection,
    /// The queue was flushed, since it went into the error state before.
    Flushed,
    /// The transport's response was not expected.
    BadResponse,
    /// A message could not be stored where the peer wanted it.
    LocalAccess,
    /// The peer found the request invalid: a message longer than its receive, for instance.
    RemoteInvalid,
    /// The peer found no permission.
    RemoteAccess,
    /// The peer failed to do it.
    RemoteOperation,
    /// The peer did not acknowledge in time, however often asked.
    RetryExceeded,
    /// The peer had no receive posted, however often asked.
    ReceiverNotReady,
    /// The device has failed.
    Fatal,
    /// The transport gave up for a reason of its own.
    General,
    /// Another; its number in `ibv_wc_status`.
    Other(u32),
}

impl CompletionStatus {
    pub(super) fn new(status: sys::ibv_wc_status) -> CompletionStatus {
        match status {
            sys::IBV_WC_SUCCESS => CompletionStatus::Success,
            sys::IBV_WC_LOC_LEN_ERR => CompletionStatus::LocalLength,
            sys::IBV_WC_LOC_QP_OP_ERR => CompletionStatus::LocalOperation,
            sys::IBV_WC_LOC_PROT_ERR => CompletionStatus::LocalProtection,
            sys::IBV_WC_WR_FLUSH_ERR => CompletionStatus::Flushed,
            sys::IBV_WC_BAD_RESP_ERR => CompletionStatus::BadResponse,
            sys::IBV_WC_LOC_ACCESS_ERR => CompletionStatus::LocalAccess,
            sys::IBV_WC_REM_INV_REQ_ERR => CompletionStatus::RemoteInvalid,
            sys::IBV_WC_REM_ACCESS_ERR => CompletionStatus::RemoteAccess,
            sys::IBV_WC_REM_OP_ERR => CompletionStatus::RemoteOperation,
            sys::IBV_WC_RETRY_EXC_ERR => CompletionStatus::RetryExceeded,
            sys::IBV_WC_RNR_RETRY_EXC_ERR => CompletionStatus::ReceiverNotReady,
            sys::IBV_WC_FATAL_ERR => CompletionStatus::Fatal,
            sys::IBV_WC_GENERAL_ERR => CompletionStatus::General,
            other => CompletionStatus::Other(other),
        }
    }
}

impl fmt::Display for CompletionStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            CompletionStatus::Success => "done",
            CompletionStatus::LocalLength => "the message is too long",
            CompletionStatus::LocalOperation => "the request does not fit the queue pair",
            CompletionStatus::LocalProtection => "a local memory check failed",
            CompletionStatus::Flushed => "flushed",
            CompletionStatus::BadResponse => "the peer's response was not expected",
            CompletionStatus::LocalAccess => "the peer wrote where it may not",
            CompletionStatus::RemoteInvalid => "the peer found the request invalid",
            CompletionStatus::RemoteAccess => "the peer refused access",
            CompletionStatus::RemoteOperation => "the peer failed",
            CompletionStatus::RetryExceeded => "the peer does not answer",
            CompletionStatus::ReceiverNotReady => "the peer posts no receives",
            CompletionStatus::Fatal => "the device failed",
            CompletionStatus::General => "the transport failed",
            CompletionStatus::Other(number) => return write!(out, "status {number}"),
        };
        out.write_str(text)
    }
}

/// Which queue a completed request was on (`ibv_wc_opcode`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CompletionKind {
    /// A send, with or without segmentation.
    Send,
    /// A receive.
    Receive,
    /// Another; its number in `ibv_wc_opcode`.
    Other(u32),
}

/// A completion; the array that it is polled into belongs to the caller.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct WorkCompletion(sys::ibv_wc);

impl Default for WorkCompletion {
    fn default() -> Self {
        WorkCompletion(completion::empty())
    }
}

impl fmt::Debug for WorkCompletion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("WorkCompletion")
            .field("wr_id", &self.wr_id())
            .field("status", &self.status())
            .field("queue_pair", &self.queue_pair())
            .finish_non_exhaustive()
    }
}

impl WorkCompletion {
    /// Of the work request.
    #[inline]
    #[must_use]
    pub fn wr_id(&self) -> u64 {
        self.0.wr_id
    }

    /// Whether it was done.
    #[inline]
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.0.status == sys::IBV_WC_SUCCESS
    }

    /// How it ended.
    #[must_use]
    pub fn status(&self) -> CompletionStatus {
        CompletionStatus::new(self.0.status)
    }

    /// The vendor's code for an error.
    #[must_use]
    pub fn vendor_error(&self) -> u32 {
        self.0.vendor_err
    }

    /// Number of the local queue pair.
    #[inline]
    #[must_use]
    pub fn queue_pair(&self) -> u32 {
        self.0.qp_num
    }

    /// Which queue it was on; of a success only.
    #[inline]
    #[must_use]
    pub fn kind(&self) -> CompletionKind {
        match self.0.opcode {
            sys::IBV_WC_SEND | sys::IBV_WC_TSO => CompletionKind::Send,
            sys::IBV_WC_RECV => CompletionKind::Receive,
            other => CompletionKind::Other(other),
        }
    }

    /// Bytes received; on a datagram queue pair with the 40 bytes of the GRH.
    #[inline]
    #[must_use]
    pub fn byte_len(&self) -> u32 {
        self.0.byte_len
    }

    /// Number of the queue pair that sent a datagram.
    #[inline]
    #[must_use]
    pub fn source_queue_pair(&self) -> u32 {
        self.0.src_qp
    }

    /// Whether a datagram's first 40 bytes are a GRH. Says nothing on other queue pairs.
    #[inline]
    #[must_use]
    pub fn has_grh(&self) -> bool {
        self.0.wc_flags & sys::IBV_WC_GRH != 0
    }

    /// Whether the device verified the checksums of a received frame. False is no finding.
    #[inline]
    #[must_use]
    pub fn checksum_verified(&self) -> bool {
        self.0.wc_flags & sys::IBV_WC_IP_CSUM_OK != 0
    }

    /// The immediate data of a received message, if it has them.
    #[inline]
    #[must_use]
    pub fn immediate(&self) -> Option<u32> {
        let there = self.0.wc_flags & sys::IBV_WC_WITH_IMM != 0;
        // SAFETY: any bytes are an integer.
        there.then(|| u32::from_be(unsafe { self.0.__bindgen_anon_1.imm_data }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_is_read_by_the_numbers_of_its_manual_page() {
        let mut wc = completion::empty();
        for (status, expected) in [
            (0, CompletionStatus::Success),
            (1, CompletionStatus::LocalLength),
            (4, CompletionStatus::LocalProtection),
            (5, CompletionStatus::Flushed),
            (9, CompletionStatus::RemoteInvalid),
            (12, CompletionStatus::RetryExceeded),
            (13, CompletionStatus::ReceiverNotReady),
            (21, CompletionStatus::General),
            (22, CompletionStatus::Other(22)),
        ] {
            wc.status = status;
            let read = WorkCompletion(wc);
            assert_eq!(read.status(), expected);
            assert_eq!(read.is_success(), status == 0);
        }
        for (opcode, expected) in [
            (0, CompletionKind::Send),
            (128, CompletionKind::Receive),
            (1, CompletionKind::Other(1)),
        ] {
            wc.opcode = opcode;
            assert_eq!(WorkCompletion(wc).kind(), expected);
        }
        wc.__bindgen_anon_1.imm_data = 0x0102_0304_u32.to_be();
        assert_eq!(WorkCompletion(wc).immediate(), None);
        wc.wc_flags = 1 << 1;
        assert_eq!(WorkCompletion(wc).immediate(), Some(0x0102_0304));
        assert!(!WorkCompletion(wc).has_grh() && !WorkCompletion(wc).checksum_verified());
        wc.wc_flags = 1 | 1 << 2;
        assert!(WorkCompletion(wc).has_grh() && WorkCompletion(wc).checksum_verified());
    }
}
