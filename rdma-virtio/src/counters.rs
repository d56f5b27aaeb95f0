//! What the two halves of virtio-net count. Plain numbers, owned by the worker, copied out whole.
//!
//! Conservation, at any time between calls:
//! - device: `rx_messages = rx_passed + rx_drop_*`, `tx_posted = tx_completed + tx_failed + in
//!   flight`;
//! - driver: `rx_returned = rx_frames + rx_drop_*`, `tx_frames = tx_completed + in flight`.

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$field_doc])* pub $field: u64,)*
        }

        impl $name {
            /// Calls `visit` with the name and value of every counter.
            pub fn visit(&self, visit: &mut dyn FnMut(&'static str, u64)) {
                $(visit(stringify!($field), self.$field);)*
            }
        }
    };
}

counters! {
    /// The driver half's counters.
    DriverCounters {
        /// Frames put on the transmit queue.
        tx_frames,
        /// Their bytes, without the virtio-net header.
        tx_bytes,
        /// Frames that came back from the transmit queue.
        tx_completed,
        /// Frames refused since the transmit queue was full; nothing was taken.
        tx_ring_full,
        /// Frames refused for another reason; nothing was taken.
        tx_refused,
        /// Frames that came back on the receive queue, good or bad.
        rx_returned,
        /// Frames given to the stack.
        rx_frames,
        /// Their bytes, without the virtio-net header.
        rx_bytes,
        /// Frames too short for a header and an Ethernet header, or that the device gave up.
        rx_drop_short,
        /// Frames whose further buffers never came or had senseless lengths.
        rx_drop_merge,
        /// Frames whose virtio-net header makes no sense.
        rx_drop_header,
        /// Receive buffers posted.
        rx_posted,
        /// Returned ids that were not outstanding.
        bad_used_id,
        /// Returned lengths beyond the buffer.
        bad_used_len,
        /// The device's index ran away; the queue is dead.
        broken_ring,
    }
}

counters! {
    /// The device half's counters.
    DeviceCounters {
        /// Chains taken off the transmit queue.
        tx_chains,
        /// Work requests posted to the NIC.
        tx_posted,
        /// Of these, inline ones, complete at once.
        tx_inline,
        /// Work requests completed, inline ones included.
        tx_completed,
        /// Work requests completed in error.
        tx_failed,
        /// Frames lost since the link was down.
        tx_link_down,
        /// Frames that the NIC refused to post.
        tx_refused,
        /// Frames dropped for a chain against the rules.
        tx_bad_chain,
        /// Frames dropped for a virtio-net header that makes no sense or was not negotiated.
        tx_bad_header,
        /// Checksums finished in software.
        tx_software_checksums,
        /// Frames segmented in software.
        tx_software_segmented,
        /// Times that the NIC's queue was full; tried again later.
        tx_nic_full,
        /// Messages that arrived.
        rx_messages,
        /// Messages passed on to the driver.
        rx_passed,
        /// Messages too short for their headers.
        rx_drop_short,
        /// Messages whose virtio-net header makes no sense or was not negotiated.
        rx_drop_header,
        /// Messages in more buffers than are supported, or that ended in error on the way.
        rx_drop_span,
        /// Receives that completed in error; their buffers went back.
        rx_failed,
        /// Receive chains against the rules.
        rx_bad_chain,
        /// Completions that name no posted receive.
        rx_bad_completion,
        /// Checksums of received frames finished in software.
        rx_software_checksums,
        /// The driver's index ran away; the queue is dead.
        broken_ring,
    }
}
