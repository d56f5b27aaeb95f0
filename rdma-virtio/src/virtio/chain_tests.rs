//! Tests of the chain walker, against a naive one and against hostile drivers.
