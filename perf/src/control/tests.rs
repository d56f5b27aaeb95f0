//! Round trips of control messages, netperf's own layouts, and garbage.
