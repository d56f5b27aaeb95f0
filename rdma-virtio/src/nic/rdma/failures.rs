//! Why work requests failed: what a user needs to know of a queue pair that ended.
//!
//! Invariant: the sum of all is the number of completions in error, of sends and of receives.

use crate::verbs::work_completion::CompletionStatus;

/// Completions in error, by cause (`enum ibv_wc_status`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Failures {
    /// The peer did not acknowledge in time: its host, port or path is gone, or starved.
    retry_exceeded: u64,
    /// The peer had no receive posted, although it gave credit.
    receiver_not_ready: u64,
    /// What was in the queue behind the failed one.
    flushed: u64,
    /// The peer refused the message.
    remote: u64,
    /// This host's memory, lengths or device.
    local: u64,
}

impl Failures {
    #[cold]
    pub(super) fn note(&mut self, status: CompletionStatus) {
        let counter = match status {
            CompletionStatus::RetryExceeded => &mut self.retry_exceeded,
            CompletionStatus::ReceiverNotReady => &mut self.receiver_not_ready,
            CompletionStatus::Flushed => &mut self.flushed,
            CompletionStatus::RemoteInvalid
            | CompletionStatus::RemoteAccess
            | CompletionStatus::RemoteOperation => &mut self.remote,
            _ => &mut self.local,
        };
        *counter += 1;
    }

    pub(super) fn visit(&self, visit: &mut dyn FnMut(&'static str, u64)) {
        visit("rdma_failures_retry_exceeded", self.retry_exceeded);
        visit("rdma_failures_receiver_not_ready", self.receiver_not_ready);
        visit("rdma_failures_flushed", self.flushed);
        visit("rdma_failures_remote", self.remote);
        visit("rdma_failures_local", self.local);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_is_counted_once() {
        let all = [
            CompletionStatus::LocalLength,
            CompletionStatus::LocalProtection,
            CompletionStatus::Flushed,
            CompletionStatus::RemoteInvalid,
            CompletionStatus::RemoteAccess,
            CompletionStatus::RemoteOperation,
            CompletionStatus::RetryExceeded,
            CompletionStatus::ReceiverNotReady,
            CompletionStatus::Fatal,
            CompletionStatus::Other(99),
        ];
        let mut failures = Failures::default();
        for status in all {
            failures.note(status);
        }
        let mut rows = Vec::new();
        failures.visit(&mut |name, value| rows.push((name, value)));
        let expected = [
            ("rdma_failures_retry_exceeded", 1),
            ("rdma_failures_receiver_not_ready", 1),
            ("rdma_failures_flushed", 1),
            ("rdma_failures_remote", 3),
            ("rdma_failures_local", 4),
        ];
        assert_eq!(rows, expected);
    }
}
