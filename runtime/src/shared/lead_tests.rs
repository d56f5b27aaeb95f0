//! Tests of the leader protocol.
