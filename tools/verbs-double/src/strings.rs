//! The texts of `ibv_wc_status_str(3)`, `ibv_event_type_str(3)`, `ibv_port_state_str(3)` and
//! `ibv_node_type_str(3)`, and the words by which control lines name a status or an event: the
//! header's names without prefix, in small letters.

use std::ffi::CStr;

/// Text and word of each `enum ibv_wc_status`, by value.
pub(crate) const WC_STATUS: [(&CStr, &str); 24] = [
    (c"success", "success"),
    (c"local length error", "loc_len_err"),
    (c"local QP operation error", "loc_qp_op_err"),
    (c"local EE context operation error", "loc_eec_op_err"),
    (c"local protection error", "loc_prot_err"),
    (c"Work Request Flushed Error", "wr_flush_err"),
    (c"memory management operation error", "mw_bind_err"),
    (c"bad response error", "bad_resp_err"),
    (c"local access error", "loc_access_err"),
    (c"remote invalid request error", "rem_inv_req_err"),
    (c"remote access error", "rem_access_err"),
    (c"remote operation error", "rem_op_err"),
    (c"transport retry counter exceeded", "retry_exc_err"),
    (c"RNR retry counter exceeded", "rnr_retry_exc_err"),
    (c"local RDD violation error", "loc_rdd_viol_err"),
    (c"remote invalid RD request", "rem_inv_rd_req_err"),
    (c"aborted error", "rem_abort_err"),
    (c"invalid EE context number", "inv_eecn_err"),
    (c"invalid EE context state", "inv_eec_state_err"),
    (c"fatal error", "fatal_err"),
    (c"response timeout error", "resp_timeout_err"),
    (c"general error", "general_err"),
    (c"TM error", "tm_err"),
    (c"TM software rendezvous", "tm_rndv_incomplete"),
];

/// Text and word of each `enum ibv_event_type`, by value.
pub(crate) const EVENT: [(&CStr, &str); 20] = [
    (c"CQ error", "cq_err"),
    (c"local work queue catastrophic error", "qp_fatal"),
    (c"invalid request local work queue error", "qp_req_err"),
    (c"local access violation work queue error", "qp_access_err"),
    (c"communication established", "comm_est"),
    (c"send queue drained", "sq_drained"),
    (c"path migrated", "path_mig"),
    (c"path migration request error", "path_mig_err"),
    (c"local catastrophic error", "device_fatal"),
    (c"port active", "port_active"),
    (c"port error", "port_err"),
    (c"LID change", "lid_change"),
    (c"P_Key change", "pkey_change"),
    (c"SM change", "sm_change"),
    (c"SRQ catastrophic error", "srq_err"),
    (c"SRQ limit reached", "srq_limit_reached"),
    (c"last WQE reached", "qp_last_wqe_reached"),
    (c"client reregistration", "client_reregister"),
    (c"GID table change", "gid_change"),
    (c"WQ fatal", "wq_fatal"),
];

/// Each `enum ibv_port_state`, by value.
pub(crate) const PORT_STATE: [&CStr; 6] =
    [c"no state change (NOP)", c"down", c"init", c"armed", c"active", c"active defer"];

/// Each `enum ibv_node_type` from 1 on.
pub(crate) const NODE_TYPE: [&CStr; 7] = [
    c"InfiniBand channel adapter",
    c"InfiniBand switch",
    c"InfiniBand router",
    c"iWARP NIC",
    c"usNIC",
    c"usNIC UDP",
    c"unspecified",
];

/// The value that a word or a number names in one of the tables above.
pub(crate) fn value_of(table: &[(&CStr, &str)], word: &str) -> Option<u32> {
    let by_name = table.iter().position(|row| row.1 == word);
    let value = by_name.or_else(|| word.parse().ok())?;
    (value < table.len()).then(|| u32::try_from(value).ok())?
}
