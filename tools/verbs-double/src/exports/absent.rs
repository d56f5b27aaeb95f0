//! Functions that must be there for programs and provider libraries to load, and that the double
//! does not perform: they fail with `EOPNOTSUPP`, or do nothing where failing is impossible.
//!
//! Those of `IBVERBS_PRIVATE_34` speak to a kernel driver on behalf of a provider; libmlx5 and
//! libefa, which perftest is linked with, name them at load. No device here has a provider.

use std::ffi::{c_int, c_void};

use super::set_errno;

/// Providers register themselves at load; they will find no device.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn verbs_register_driver_34(_operations: *const c_void) {}

/// The old form of the same.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ibv_register_driver(_name: *const c_void, _init: *const c_void) {}

macro_rules! absent {
    ($($name:ident)+) => {
        $(
            #[doc = "Fails with `EOPNOTSUPP`."]
            #[unsafe(no_mangle)]
            pub(crate) extern "C" fn $name() -> c_int {
                set_errno(libc::EOPNOTSUPP);
                libc::EOPNOTSUPP
            }
        )+
    };
}

macro_rules! absent_pointer {
    ($($name:ident)+) => {
        $(
            #[doc = "Returns null with `EOPNOTSUPP`."]
            #[unsafe(no_mangle)]
            pub(crate) extern "C" fn $name() -> *mut c_void {
                set_errno(libc::EOPNOTSUPP);
                std::ptr::null_mut()
            }
        )+
    };
}

absent_pointer! {
    ibv_import_device ibv_import_pd ibv_import_mr ibv_import_dm ibv_reg_dmabuf_mr
    _verbs_init_and_alloc_context verbs_open_device
}

absent! {
    ibv_set_ece ibv_query_ece ibv_unimport_pd ibv_unimport_mr ibv_unimport_dm
    ibv_resolve_eth_l2_from_gid ibv_copy_ah_attr_from_kern ibv_copy_qp_attr_from_kern
    ibv_copy_path_rec_from_kern ibv_copy_path_rec_to_kern
    __ioctl_final_num_attrs __verbs_log execute_ioctl ibv_cmd_advise_mr ibv_cmd_alloc_dm
    ibv_cmd_alloc_mw ibv_cmd_alloc_pd ibv_cmd_attach_mcast ibv_cmd_close_xrcd ibv_cmd_create_ah
    ibv_cmd_create_counters ibv_cmd_create_cq ibv_cmd_create_cq_ex ibv_cmd_create_flow
    ibv_cmd_create_flow_action_esp ibv_cmd_create_qp ibv_cmd_create_qp_ex ibv_cmd_create_qp_ex2
    ibv_cmd_create_rwq_ind_table ibv_cmd_create_srq ibv_cmd_create_srq_ex ibv_cmd_create_wq
    ibv_cmd_dealloc_mw ibv_cmd_dealloc_pd ibv_cmd_dereg_mr ibv_cmd_destroy_ah
    ibv_cmd_destroy_counters ibv_cmd_destroy_cq ibv_cmd_destroy_flow ibv_cmd_destroy_flow_action
    ibv_cmd_destroy_qp ibv_cmd_destroy_rwq_ind_table ibv_cmd_destroy_srq ibv_cmd_destroy_wq
    ibv_cmd_detach_mcast ibv_cmd_free_dm ibv_cmd_get_context ibv_cmd_modify_cq
    ibv_cmd_modify_flow_action_esp ibv_cmd_modify_qp ibv_cmd_modify_qp_ex ibv_cmd_modify_srq
    ibv_cmd_modify_wq ibv_cmd_open_qp ibv_cmd_open_xrcd ibv_cmd_poll_cq ibv_cmd_post_recv
    ibv_cmd_post_send ibv_cmd_post_srq_recv ibv_cmd_query_context ibv_cmd_query_device_any
    ibv_cmd_query_mr ibv_cmd_query_port ibv_cmd_query_qp ibv_cmd_query_srq ibv_cmd_read_counters
    ibv_cmd_reg_dm_mr ibv_cmd_reg_dmabuf_mr ibv_cmd_reg_mr ibv_cmd_req_notify_cq ibv_cmd_rereg_mr
    ibv_cmd_resize_cq ibv_read_ibdev_sysfs_file verbs_allow_disassociate_destroy verbs_init_cq
    verbs_set_ops verbs_uninit_context
}

/// ibv_rereg_mr(3): IBV_REREG_MR_ERR_INPUT, so that the old region is known to be valid.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ibv_rereg_mr() -> c_int {
    set_errno(libc::EOPNOTSUPP);
    -1
}

/// ibv_query_qp_data_in_order(3): 0, nothing is guaranteed.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ibv_query_qp_data_in_order() -> c_int {
    0
}
