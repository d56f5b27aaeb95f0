//! Tests of the two ends of a ring, over both policies.
