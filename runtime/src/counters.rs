//! Every counter of a worker by layer and name.

use roceway_rdma_virtio::nic::Nic;

use crate::core::Core;

impl Core {
    /// Calls `visit` with layer, name and value of every counter of stack, port, device and NIC.
    pub(crate) fn visit_counters(&self, visit: &mut dyn FnMut(&'static str, &'static str, u64)) {
        self.stack.visit_counters(visit);
        let port = self.port.counters;
        let (driver, device) = self.port.interface.counters();
        // All that the driver has are handed to the stack.
        visit("port", "frames_received", driver.rx_frames);
        visit("port", "frames_sent", port.frames_sent);
        visit("port", "transmit_stalls", port.transmit_stalls);
        visit("port", "frames_refused", port.frames_refused);
        if let Some(capture) = &self.port.capture {
            capture.visit(&mut |name, value| visit("capture", name, value));
        }
        self.visit_memory(visit);
        visit("link", "link_up", self.link.link_up);
        visit("link", "link_down", self.link.link_down);
        visit("link", "peers_gone", self.link.peers_gone);
        visit("link", "hosts_gone", self.link.hosts_gone);
        visit("link", "device_removed", self.link.device_removed);
        visit("link", "device_errors", self.link.device_errors);
        driver.visit(&mut |name, value| visit("driver", name, value));
        device.visit(&mut |name, value| visit("device", name, value));
        self.port.interface.nic().visit_counters(&mut |name, value| visit("nic", name, value));
    }

    fn visit_memory(&self, visit: &mut dyn FnMut(&'static str, &'static str, u64)) {
        let arena = self.port.interface.memory_ref();
        let slots = arena.counters();
        visit("memory", "small_exhausted", slots.small_exhausted);
        visit("memory", "chunk_exhausted", slots.chunk_exhausted);
        visit("memory", "block_exhausted", slots.block_exhausted);
        visit("memory", "receive_exhausted", slots.receive_exhausted);
        visit("memory", "registered", slots.registered);
        visit("memory", "unregistered", slots.unregistered);
        visit("memory", "misuse", slots.misuse);
        let sends = arena.lease_counters();
        visit("memory", "given", sends.taken);
        visit("memory", "given_acknowledged", sends.acknowledged);
        visit("memory", "given_dropped", sends.dropped);
        visit("memory", "given_exhausted", sends.exhausted);
        visit("memory", "given_refused", sends.refused);
        visit("memory", "lent_now", arena.lent().into());
        visit("memory", "bytes_lent_copied", self.lends_copied);
    }
}
