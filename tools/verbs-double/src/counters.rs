//! What programs asked of the double, by number. The tables of calls per transaction come from
//! here, and tests assert on it.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Counts since the process began or since they were cleared.
        #[derive(Clone, Copy, Default, Debug)]
        pub(crate) struct Counters {
            $($(#[$doc])* pub(crate) $name: u64,)+
        }

        impl Counters {
            /// The counter of a name.
            pub(crate) fn by_name(&self, name: &str) -> Option<u64> {
                match name {
                    $(stringify!($name) => Some(self.$name),)+
                    _ => None,
                }
            }

            /// All of them, a line each.
            pub(crate) fn lines(&self) -> String {
                let mut text = String::new();
                $(text.push_str(&format!("{} {}\n", stringify!($name), self.$name));)+
                text
            }
        }
    };
}

counters! {
    /// Calls of post_send: doorbells of the send side. `ibv_wr_complete` counts as one.
    post_send_calls,
    /// Send work requests taken.
    send_requests,
    /// SGEs of them.
    send_sges,
    /// Bytes named by them.
    send_bytes,
    /// Send requests that were signalled.
    send_signalled,
    /// Send requests with inline data.
    send_inline,
    /// Send requests with IBV_WR_TSO.
    send_tso,
    /// Send requests with IBV_SEND_IP_CSUM.
    send_csum,
    /// Send requests that were refused at once.
    send_refused,
    /// Calls of post_recv and post_srq_recv.
    post_recv_calls,
    /// Receive work requests taken.
    recv_requests,
    /// SGEs of them.
    recv_sges,
    /// Receive requests that were refused at once.
    recv_refused,
    /// Calls of poll_cq, and of start_poll and next_poll.
    poll_calls,
    /// Of them, those that found nothing.
    poll_empty,
    /// Completions handed out.
    completions,
    /// Of them, those of sends.
    completions_send,
    /// Of them, those not successful.
    completions_error,
    /// Calls of req_notify_cq.
    notify_calls,
    /// Completion events put into channels.
    completion_events,
    /// Asynchronous events put into contexts.
    async_events,
    /// Ethernet frames that left a port.
    frames_sent,
    /// Ethernet frames that a queue pair received.
    frames_steered,
    /// Ethernet frames that went to a kernel side.
    frames_to_kernel,
    /// Ethernet frames that nobody wanted.
    frames_unwanted,
    /// Ethernet frames that found no receive posted.
    frames_no_receive,
    /// Ethernet frames longer than the MTU, which the port does not send.
    frames_too_long,
    /// Messages of RC and UD that left a queue pair, repeats included.
    messages_sent,
    /// Messages of RC that were sent again.
    messages_repeated,
    /// Answers that said "receiver not ready".
    not_ready_answers,
    /// Datagrams dropped for a wrong Q_Key.
    datagrams_wrong_key,
    /// Datagrams dropped since no receive was posted.
    datagrams_no_receive,
    /// Messages dropped at a receiver that does not know or want them.
    messages_unwanted,
    /// Messages lost on purpose.
    lost_on_purpose,
    /// Messages dropped since the port was down.
    dropped_port_down,
    /// Messages for a process that is not there.
    dropped_no_peer,
    /// Messages dropped since a peer does not read.
    dropped_peer_full,
}
