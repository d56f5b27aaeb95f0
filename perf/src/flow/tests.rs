//! Flows against each other over the kernel's loopback, with tiny durations.
