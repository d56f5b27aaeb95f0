//! The double's rules, through its binary interface: for each, a request that holds and one that
//! breaks it. What two processes do is in `processes`, layouts are in `layout`.

// Links the library, whose functions are called by name.
use verbs_double as _;

#[path = "rules/datagrams.rs"]
mod datagrams;
#[path = "rules/extended.rs"]
mod extended;
#[path = "rules/failures.rs"]
mod failures;
#[path = "rules/harness.rs"]
mod harness;
#[path = "rules/objects.rs"]
mod objects;
#[path = "rules/posting.rs"]
mod posting;
#[path = "rules/queries.rs"]
mod queries;
#[path = "rules/raw.rs"]
mod raw;
#[path = "rules/reliable.rs"]
mod reliable;
#[path = "rules/states.rs"]
mod states;
