//! The crate rdma-sys, whose declarations another hand has made.
//!
//! It has no constants of enumerations without a name and no macros (group `plain`): those are
//! compared by the C compiler only.

use super::declared;
use roceway_rdma_virtio::verbs::sys;
use std::mem::{align_of, offset_of, size_of};

/// Everything of rdma-sys, and the types that it takes from libc.
mod theirs {
    pub(super) use libc::{sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage};
    pub(super) use rdma_sys::*;
}

/// What rdma-sys makes a constant of: a number, a set of flags, or a variant.
trait Number {
    fn number(self) -> i128;
}

impl Number for u32 {
    fn number(self) -> i128 {
        i128::from(self)
    }
}

impl Number for i32 {
    fn number(self) -> i128 {
        i128::from(self)
    }
}

impl Number for theirs::ibv_event_type {
    fn number(self) -> i128 {
        i128::from(self as u32)
    }
}

macro_rules! flags {
    ($($name:ident,)*) => {$(
        impl Number for theirs::$name {
            fn number(self) -> i128 {
                i128::from(self.0)
            }
        }
    )*};
}

flags! {
    ibv_device_cap_flags, ibv_odp_general_caps, ibv_rx_hash_function_flags, ibv_rx_hash_fields,
    ibv_raw_packet_caps, ibv_port_cap_flags, ibv_create_cq_wc_flags, ibv_wc_flags,
    ibv_access_flags, ibv_srq_attr_mask, ibv_qp_init_attr_mask, ibv_qp_create_flags,
    ibv_qp_create_send_ops_flags, ibv_qp_attr_mask, ibv_send_flags, ibv_cq_attr_mask,
    ibv_flow_flags, ibv_cq_init_attr_mask, ibv_create_cq_attr_flags,
}

macro_rules! compare_constant {
    (plain $constant:ident $differences:ident $count:ident) => {};
    (ibv_gid_type $constant:ident $differences:ident $count:ident) => {
        compare_constant!(@ theirs::$constant, $constant, $differences, $count);
    };
    ($group:ident $constant:ident $differences:ident $count:ident) => {
        compare_constant!(@ theirs::$group::$constant, $constant, $differences, $count);
    };
    (@ $theirs:expr, $constant:ident, $differences:ident, $count:ident) => {
        $count += 1;
        let (ours, theirs) = (i128::from(sys::$constant), $theirs.number());
        if ours != theirs {
            $differences.push(format!("{}: {ours}, theirs {theirs}", stringify!($constant)));
        }
    };
}

macro_rules! compare {
    (structures { $($kind:ident $ours:ident $theirs:ident {
        $($field:ident $their_field:ident,)*
    })* } constants { $($group:ident { $($constant:ident)* })* }) => {
        fn differences() -> (Vec<String>, usize) {
            let (mut differences, mut count) = (Vec::new(), 0);
            let mut compare = |what: &str, ours: usize, theirs: usize| {
                count += 1;
                if ours != theirs {
                    differences.push(format!("{what}: {ours}, theirs {theirs}"));
                }
            };
            $(
                let name = stringify!($ours);
                let (ours, theirs) = (size_of::<sys::$ours>(), size_of::<theirs::$theirs>());
                compare(&format!("size of {name}"), ours, theirs);
                let (ours, theirs) = (align_of::<sys::$ours>(), align_of::<theirs::$theirs>());
                compare(&format!("alignment of {name}"), ours, theirs);
                $(
                    let ours = offset_of!(sys::$ours, $field);
                    let theirs = offset_of!(theirs::$theirs, $their_field);
                    compare(&format!("{name}.{}", stringify!($field)), ours, theirs);
                )*
            )*
            $($(compare_constant!($group $constant differences count);)*)*
            (differences, count)
        }
    };
}

declared::declared!(compare);

#[test]
fn rdma_sys_has_the_same_declarations() {
    let (differences, count) = differences();
    println!("{count} compared");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(count > 900, "only {count} compared: the list is broken");
}
