//! Verbs: libibverbs and librdmacm, found at run time, and safe objects above them.
//!
//! The crate links neither library and needs no header: [`library`] opens them when the first RDMA
//! device is asked for, and says what to install if they are not there. Objects are handles that
//! keep their parents alive (a queue pair its queues, a region its domain, all of them the device),
//! so that they are destroyed in the order that verbs prescribe, whatever the order of their drops.
//! Names of the C interface appear below this module and nowhere else.
//!
//! Verbs are thread-safe unless a thread domain is used (ibv_alloc_td(3)), which these are not: all
//! objects are `Send` and `Sync`, and the calls take `&self`. An environment that switches a
//! provider's locks off (`MLX5_SINGLE_THREADED=1`) is its user's promise that one thread makes all
//! calls.

pub mod address;
mod array;
pub mod attributes;
mod chain;
pub mod completion;
pub mod completion_batch;
pub mod connect;
pub mod context;
pub mod device;
pub mod domain;
mod error;
pub mod events;
pub mod extended;
pub mod flow;
pub mod gid;
mod interfaces;
pub mod library;
pub mod queue_pair;
pub mod receive_slots;
pub mod region;
pub mod shared_receive;
mod short_sends;
#[doc(hidden)]
pub mod sys;
pub mod transition;
pub mod trial;
pub mod work_completion;
pub mod work_list;
