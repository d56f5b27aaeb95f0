//! Two processes on one wire, and programs of the distribution on the library, unmodified.
//!
//! A second process is this test program again, asked by an environment variable to be the peer.

use verbs_double as _;

#[path = "rules/harness.rs"]
#[allow(dead_code, reason = "shared with the tests of the rules; not all of it is used here")]
mod harness;
#[path = "processes/pairs.rs"]
mod pairs;
#[path = "processes/stock.rs"]
mod stock;
