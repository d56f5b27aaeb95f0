//! Every declaration of Roceway's bindings: made by `tools/verbs-bindings`, never edited.
//!
//! Structures as `kind ours theirs { our_field their_field, ... }`, constants by enumeration. A
//! `nested` type has no name in C.

macro_rules! declared {
    ($consumer:ident) => {
        $consumer! {
            structures {
                union ibv_gid ibv_gid {
                    raw raw,
                    global global,
                }
                nested ibv_gid__bindgen_ty_1 ibv_gid_global_t {
                    subnet_prefix subnet_prefix,
                    interface_id interface_id,
                }
                struct ibv_gid_entry ibv_gid_entry {
                    gid gid,
                    gid_index gid_index,
                    port_num port_num,
                    gid_type gid_type,
                    ndev_ifindex ndev_ifindex,
                }
                struct ibv_alloc_dm_attr ibv_alloc_dm_attr {
                }
                struct ibv_dm ibv_dm {
                }
                struct ibv_device_attr ibv_device_attr {
                    fw_ver fw_ver,
                    node_guid node_guid,
                    sys_image_guid sys_image_guid,
                    max_mr_size max_mr_size,
                    page_size_cap page_size_cap,
                    vendor_id vendor_id,
                    vendor_part_id vendor_part_id,
                    hw_ver hw_ver,
                    max_qp max_qp,
                    max_qp_wr max_qp_wr,
                    device_cap_flags device_cap_flags,
                    max_sge max_sge,
                    max_sge_rd max_sge_rd,
                    max_cq max_cq,
                    max_cqe max_cqe,
                    max_mr max_mr,
                    max_pd max_pd,
                    max_qp_rd_atom max_qp_rd_atom,
                    max_ee_rd_atom max_ee_rd_atom,
                    max_res_rd_atom max_res_rd_atom,
                    max_qp_init_rd_atom max_qp_init_rd_atom,
                    max_ee_init_rd_atom max_ee_init_rd_atom,
                    atomic_cap atomic_cap,
                    max_ee max_ee,
                    max_rdd max_rdd,
                    max_mw max_mw,
                    max_raw_ipv6_qp max_raw_ipv6_qp,
                    max_raw_ethy_qp max_raw_ethy_qp,
                    max_mcast_grp max_mcast_grp,
                    max_mcast_qp_attach max_mcast_qp_attach,
                    max_total_mcast_qp_attach max_total_mcast_qp_attach,
                    max_ah max_ah,
                    max_fmr max_fmr,
                    max_map_per_fmr max_map_per_fmr,
                    max_srq max_srq,
                    max_srq_wr max_srq_wr,
                    max_srq_sge max_srq_sge,
                    max_pkeys max_pkeys,
                    local_ca_ack_delay local_ca_ack_delay,
                    phys_port_cnt phys_port_cnt,
                }
                struct ibv_query_device_ex_input ibv_query_device_ex_input {
                    comp_mask comp_mask,
                }
                struct ibv_odp_caps ibv_odp_caps {
                    general_caps general_caps,
                    per_transport_caps per_transport_caps,
                }
                nested ibv_odp_caps__bindgen_ty_1 ibv_odp_caps__bindgen_ty_1 {
                    rc_odp_caps rc_odp_caps,
                    uc_odp_caps uc_odp_caps,
                    ud_odp_caps ud_odp_caps,
                }
                struct ibv_tso_caps ibv_tso_caps {
                    max_tso max_tso,
                    supported_qpts supported_qpts,
                }
                struct ibv_rss_caps ibv_rss_caps {
                    supported_qpts supported_qpts,
                    max_rwq_indirection_tables max_rwq_indirection_tables,
                    max_rwq_indirection_table_size max_rwq_indirection_table_size,
                    rx_hash_fields_mask rx_hash_fields_mask,
                    rx_hash_function rx_hash_function,
                }
                struct ibv_packet_pacing_caps ibv_packet_pacing_caps {
                    qp_rate_limit_min qp_rate_limit_min,
                    qp_rate_limit_max qp_rate_limit_max,
                    supported_qpts supported_qpts,
                }
                struct ibv_tm_caps ibv_tm_caps {
                    max_rndv_hdr_size max_rndv_hdr_size,
                    max_num_tags max_num_tags,
                    flags flags,
                    max_ops max_ops,
                    max_sge max_sge,
                }
                struct ibv_cq_moderation_caps ibv_cq_moderation_caps {
                    max_cq_count max_cq_count,
                    max_cq_period max_cq_period,
                }
                struct ibv_pci_atomic_caps ibv_pci_atomic_caps {
                    fetch_add fetch_add,
                    swap swap,
                    compare_swap compare_swap,
                }
                struct ibv_device_attr_ex ibv_device_attr_ex {
                    orig_attr orig_attr,
                    comp_mask comp_mask,
                    odp_caps odp_caps,
                    completion_timestamp_mask completion_timestamp_mask,
                    hca_core_clock hca_core_clock,
                    device_cap_flags_ex device_cap_flags_ex,
                    tso_caps tso_caps,
                    rss_caps rss_caps,
                    max_wq_type_rq max_wq_type_rq,
                    packet_pacing_caps packet_pacing_caps,
                    raw_packet_caps raw_packet_caps,
                    tm_caps tm_caps,
                    cq_mod_caps cq_mod_caps,
                    max_dm_size max_dm_size,
                    pci_atomic_caps pci_atomic_caps,
                    xrc_odp_caps xrc_odp_caps,
                    phys_port_cnt_ex phys_port_cnt_ex,
                }
                struct ibv_port_attr ibv_port_attr {
                    state state,
                    max_mtu max_mtu,
                    active_mtu active_mtu,
                    gid_tbl_len gid_tbl_len,
                    port_cap_flags port_cap_flags,
                    max_msg_sz max_msg_sz,
                    bad_pkey_cntr bad_pkey_cntr,
                    qkey_viol_cntr qkey_viol_cntr,
                    pkey_tbl_len pkey_tbl_len,
                    lid lid,
                    sm_lid sm_lid,
                    lmc lmc,
                    max_vl_num max_vl_num,
                    sm_sl sm_sl,
                    subnet_timeout subnet_timeout,
                    init_type_reply init_type_reply,
                    active_width active_width,
                    active_speed active_speed,
                    phys_state phys_state,
                    link_layer link_layer,
                    flags flags,
                    port_cap_flags2 port_cap_flags2,
                }
                struct ibv_async_event ibv_async_event {
                    element element,
                    event_type event_type,
                }
                nested ibv_async_event__bindgen_ty_1 ibv_async_event_element_t {
                    cq cq,
                    qp qp,
                    srq srq,
                    wq wq,
                    port_num port_num,
                }
                struct ibv_wc ibv_wc {
                    wr_id wr_id,
                    status status,
                    opcode opcode,
                    vendor_err vendor_err,
                    byte_len byte_len,
                    __bindgen_anon_1 imm_data_invalidated_rkey_union,
                    qp_num qp_num,
                    src_qp src_qp,
                    wc_flags wc_flags,
                    pkey_index pkey_index,
                    slid slid,
                    sl sl,
                    dlid_path_bits dlid_path_bits,
                }
                nested ibv_wc__bindgen_ty_1 imm_data_invalidated_rkey_union_t {
                    imm_data imm_data,
                    invalidated_rkey invalidated_rkey,
                }
                struct ibv_mw_bind_info ibv_mw_bind_info {
                }
                struct ibv_pd ibv_pd {
                    context context,
                    handle handle,
                }
                struct ibv_td_init_attr ibv_td_init_attr {
                }
                struct ibv_td ibv_td {
                }
                struct ibv_xrcd_init_attr ibv_xrcd_init_attr {
                }
                struct ibv_xrcd ibv_xrcd {
                }
                struct ibv_mr ibv_mr {
                    context context,
                    pd pd,
                    addr addr,
                    length length,
                    handle handle,
                    lkey lkey,
                    rkey rkey,
                }
                struct ibv_mw ibv_mw {
                }
                struct ibv_global_route ibv_global_route {
                    dgid dgid,
                    flow_label flow_label,
                    sgid_index sgid_index,
                    hop_limit hop_limit,
                    traffic_class traffic_class,
                }
                struct ibv_grh ibv_grh {
                    version_tclass_flow version_tclass_flow,
                    paylen paylen,
                    next_hdr next_hdr,
                    hop_limit hop_limit,
                    sgid sgid,
                    dgid dgid,
                }
                struct ibv_ah_attr ibv_ah_attr {
                    grh grh,
                    dlid dlid,
                    sl sl,
                    src_path_bits src_path_bits,
                    static_rate static_rate,
                    is_global is_global,
                    port_num port_num,
                }
                struct ibv_srq_attr ibv_srq_attr {
                    max_wr max_wr,
                    max_sge max_sge,
                    srq_limit srq_limit,
                }
                struct ibv_srq_init_attr ibv_srq_init_attr {
                    srq_context srq_context,
                    attr attr,
                }
                struct ibv_srq_init_attr_ex ibv_srq_init_attr_ex {
                }
                struct ibv_wq_init_attr ibv_wq_init_attr {
                }
                struct ibv_wq_attr ibv_wq_attr {
                }
                struct ibv_rwq_ind_table ibv_rwq_ind_table {
                }
                struct ibv_rwq_ind_table_init_attr ibv_rwq_ind_table_init_attr {
                }
                struct ibv_qp_cap ibv_qp_cap {
                    max_send_wr max_send_wr,
                    max_recv_wr max_recv_wr,
                    max_send_sge max_send_sge,
                    max_recv_sge max_recv_sge,
                    max_inline_data max_inline_data,
                }
                struct ibv_qp_init_attr ibv_qp_init_attr {
                    qp_context qp_context,
                    send_cq send_cq,
                    recv_cq recv_cq,
                    srq srq,
                    cap cap,
                    qp_type qp_type,
                    sq_sig_all sq_sig_all,
                }
                struct ibv_rx_hash_conf ibv_rx_hash_conf {
                    rx_hash_function rx_hash_function,
                    rx_hash_key_len rx_hash_key_len,
                    rx_hash_key rx_hash_key,
                    rx_hash_fields_mask rx_hash_fields_mask,
                }
                struct ibv_qp_init_attr_ex ibv_qp_init_attr_ex {
                    qp_context qp_context,
                    send_cq send_cq,
                    recv_cq recv_cq,
                    srq srq,
                    cap cap,
                    qp_type qp_type,
                    sq_sig_all sq_sig_all,
                    comp_mask comp_mask,
                    pd pd,
                    xrcd xrcd,
                    create_flags create_flags,
                    max_tso_header max_tso_header,
                    rwq_ind_tbl rwq_ind_tbl,
                    rx_hash_conf rx_hash_conf,
                    source_qpn source_qpn,
                    send_ops_flags send_ops_flags,
                }
                struct ibv_qp_open_attr ibv_qp_open_attr {
                }
                struct ibv_qp_attr ibv_qp_attr {
                    qp_state qp_state,
                    cur_qp_state cur_qp_state,
                    path_mtu path_mtu,
                    path_mig_state path_mig_state,
                    qkey qkey,
                    rq_psn rq_psn,
                    sq_psn sq_psn,
                    dest_qp_num dest_qp_num,
                    qp_access_flags qp_access_flags,
                    cap cap,
                    ah_attr ah_attr,
                    alt_ah_attr alt_ah_attr,
                    pkey_index pkey_index,
                    alt_pkey_index alt_pkey_index,
                    en_sqd_async_notify en_sqd_async_notify,
                    sq_draining sq_draining,
                    max_rd_atomic max_rd_atomic,
                    max_dest_rd_atomic max_dest_rd_atomic,
                    min_rnr_timer min_rnr_timer,
                    port_num port_num,
                    timeout timeout,
                    retry_cnt retry_cnt,
                    rnr_retry rnr_retry,
                    alt_port_num alt_port_num,
                    alt_timeout alt_timeout,
                    rate_limit rate_limit,
                }
                struct ibv_qp_rate_limit_attr ibv_qp_rate_limit_attr {
                }
                struct ibv_data_buf ibv_data_buf {
                }
                struct ibv_sge ibv_sge {
                    addr addr,
                    length length,
                    lkey lkey,
                }
                struct ibv_send_wr ibv_send_wr {
                    wr_id wr_id,
                    next next,
                    sg_list sg_list,
                    num_sge num_sge,
                    opcode opcode,
                    send_flags send_flags,
                    __bindgen_anon_1 imm_data_invalidated_rkey_union,
                    wr wr,
                    qp_type qp_type,
                    __bindgen_anon_2 bind_mw_tso_union,
                }
                nested ibv_send_wr__bindgen_ty_1 imm_data_invalidated_rkey_union_t {
                    imm_data imm_data,
                    invalidate_rkey invalidated_rkey,
                }
                nested ibv_send_wr__bindgen_ty_2 wr_t {
                    rdma rdma,
                    atomic atomic,
                    ud ud,
                }
                nested ibv_send_wr__bindgen_ty_2__bindgen_ty_1 rdma_t {
                    remote_addr remote_addr,
                    rkey rkey,
                }
                nested ibv_send_wr__bindgen_ty_2__bindgen_ty_2 atomic_t {
                    remote_addr remote_addr,
                    compare_add compare_add,
                    swap swap,
                    rkey rkey,
                }
                nested ibv_send_wr__bindgen_ty_2__bindgen_ty_3 ud_t {
                    ah ah,
                    remote_qpn remote_qpn,
                    remote_qkey remote_qkey,
                }
                nested ibv_send_wr__bindgen_ty_3 qp_type_t {
                    xrc xrc,
                }
                nested ibv_send_wr__bindgen_ty_3__bindgen_ty_1 xrc_t {
                    remote_srqn remote_srqn,
                }
                nested ibv_send_wr__bindgen_ty_4 bind_mw_tso_union_t {
                    bind_mw bind_mw,
                    tso tso,
                }
                nested ibv_send_wr__bindgen_ty_4__bindgen_ty_1 bind_mw_t {
                    mw mw,
                    rkey rkey,
                    bind_info bind_info,
                }
                nested ibv_send_wr__bindgen_ty_4__bindgen_ty_2 tso_t {
                    hdr hdr,
                    hdr_sz hdr_sz,
                    mss mss,
                }
                struct ibv_recv_wr ibv_recv_wr {
                    wr_id wr_id,
                    next next,
                    sg_list sg_list,
                    num_sge num_sge,
                }
                struct ibv_ops_wr ibv_ops_wr {
                }
                struct ibv_mw_bind ibv_mw_bind {
                }
                struct ibv_srq ibv_srq {
                    context context,
                    srq_context srq_context,
                    pd pd,
                    handle handle,
                    mutex mutex,
                    cond cond,
                    events_completed events_completed,
                }
                struct ibv_wq ibv_wq {
                }
                struct ibv_qp ibv_qp {
                    context context,
                    qp_context qp_context,
                    pd pd,
                    send_cq send_cq,
                    recv_cq recv_cq,
                    srq srq,
                    handle handle,
                    qp_num qp_num,
                    state state,
                    qp_type qp_type,
                    mutex mutex,
                    cond cond,
                    events_completed events_completed,
                }
                struct ibv_qp_ex ibv_qp_ex {
                    qp_base qp_base,
                    comp_mask comp_mask,
                    wr_id wr_id,
                    wr_flags wr_flags,
                    wr_atomic_cmp_swp wr_atomic_cmp_swp,
                    wr_atomic_fetch_add wr_atomic_fetch_add,
                    wr_bind_mw wr_bind_mw,
                    wr_local_inv wr_local_inv,
                    wr_rdma_read wr_rdma_read,
                    wr_rdma_write wr_rdma_write,
                    wr_rdma_write_imm wr_rdma_write_imm,
                    wr_send wr_send,
                    wr_send_imm wr_send_imm,
                    wr_send_inv wr_send_inv,
                    wr_send_tso wr_send_tso,
                    wr_set_ud_addr wr_set_ud_addr,
                    wr_set_xrc_srqn wr_set_xrc_srqn,
                    wr_set_inline_data wr_set_inline_data,
                    wr_set_inline_data_list wr_set_inline_data_list,
                    wr_set_sge wr_set_sge,
                    wr_set_sge_list wr_set_sge_list,
                    wr_start wr_start,
                    wr_complete wr_complete,
                    wr_abort wr_abort,
                    wr_atomic_write wr_atomic_write,
                }
                struct ibv_comp_channel ibv_comp_channel {
                    context context,
                    fd fd,
                    refcnt refcnt,
                }
                struct ibv_cq ibv_cq {
                    context context,
                    channel channel,
                    cq_context cq_context,
                    handle handle,
                    cqe cqe,
                    mutex mutex,
                    cond cond,
                    comp_events_completed comp_events_completed,
                    async_events_completed async_events_completed,
                }
                struct ibv_poll_cq_attr ibv_poll_cq_attr {
                    comp_mask comp_mask,
                }
                struct ibv_wc_tm_info ibv_wc_tm_info {
                }
                struct ibv_cq_ex ibv_cq_ex {
                    context context,
                    channel channel,
                    cq_context cq_context,
                    handle handle,
                    cqe cqe,
                    mutex mutex,
                    cond cond,
                    comp_events_completed comp_events_completed,
                    async_events_completed async_events_completed,
                    comp_mask comp_mask,
                    status status,
                    wr_id wr_id,
                    start_poll start_poll,
                    next_poll next_poll,
                    end_poll end_poll,
                    read_opcode read_opcode,
                    read_vendor_err read_vendor_err,
                    read_byte_len read_byte_len,
                    read_imm_data read_imm_data,
                    read_qp_num read_qp_num,
                    read_src_qp read_src_qp,
                    read_wc_flags read_wc_flags,
                    read_slid read_slid,
                    read_sl read_sl,
                    read_dlid_path_bits read_dlid_path_bits,
                    read_completion_ts read_completion_ts,
                    read_cvlan read_cvlan,
                    read_flow_tag read_flow_tag,
                    read_tm_info read_tm_info,
                    read_completion_wallclock_ns read_completion_wallclock_ns,
                }
                struct ibv_moderate_cq ibv_moderate_cq {
                    cq_count cq_count,
                    cq_period cq_period,
                }
                struct ibv_modify_cq_attr ibv_modify_cq_attr {
                    attr_mask attr_mask,
                    moderate moderate,
                }
                struct ibv_ah ibv_ah {
                    context context,
                    pd pd,
                    handle handle,
                }
                struct ibv_flow_eth_filter ibv_flow_eth_filter {
                    dst_mac dst_mac,
                    src_mac src_mac,
                    ether_type ether_type,
                    vlan_tag vlan_tag,
                }
                struct ibv_flow_spec_eth ibv_flow_spec_eth {
                    type_ type_,
                    size size,
                    val val,
                    mask mask,
                }
                struct ibv_flow_ipv4_filter ibv_flow_ipv4_filter {
                    src_ip src_ip,
                    dst_ip dst_ip,
                }
                struct ibv_flow_spec_ipv4 ibv_flow_spec_ipv4 {
                    type_ type_,
                    size size,
                    val val,
                    mask mask,
                }
                struct ibv_flow_ipv6_filter ibv_flow_ipv6_filter {
                    src_ip src_ip,
                    dst_ip dst_ip,
                    flow_label flow_label,
                    next_hdr next_hdr,
                    traffic_class traffic_class,
                    hop_limit hop_limit,
                }
                struct ibv_flow_spec_ipv6 ibv_flow_spec_ipv6 {
                    type_ type_,
                    size size,
                    val val,
                    mask mask,
                }
                struct ibv_flow_tcp_udp_filter ibv_flow_tcp_udp_filter {
                    dst_port dst_port,
                    src_port src_port,
                }
                struct ibv_flow_spec_tcp_udp ibv_flow_spec_tcp_udp {
                    type_ type_,
                    size size,
                    val val,
                    mask mask,
                }
                struct ibv_flow_spec_action_tag ibv_flow_spec_action_tag {
                    type_ type_,
                    size size,
                    tag_id tag_id,
                }
                struct ibv_flow_spec_action_drop ibv_flow_spec_action_drop {
                    type_ type_,
                    size size,
                }
                struct ibv_flow_attr ibv_flow_attr {
                    comp_mask comp_mask,
                    type_ type_,
                    size size,
                    priority priority,
                    num_of_specs num_of_specs,
                    port port,
                    flags flags,
                }
                struct ibv_flow ibv_flow {
                    comp_mask comp_mask,
                    context context,
                    handle handle,
                }
                struct ibv_flow_action ibv_flow_action {
                }
                struct ibv_flow_action_esp_attr ibv_flow_action_esp_attr {
                }
                struct _ibv_device_ops _ibv_device_ops {
                    _dummy1 _dummy1,
                    _dummy2 _dummy2,
                }
                struct ibv_device ibv_device {
                    _ops _ops,
                    node_type node_type,
                    transport_type transport_type,
                    name name,
                    dev_name dev_name,
                    dev_path dev_path,
                    ibdev_path ibdev_path,
                }
                struct ibv_context_ops ibv_context_ops {
                    _compat_query_device _compat_query_device,
                    _compat_query_port _compat_query_port,
                    _compat_alloc_pd _compat_alloc_pd,
                    _compat_dealloc_pd _compat_dealloc_pd,
                    _compat_reg_mr _compat_reg_mr,
                    _compat_rereg_mr _compat_rereg_mr,
                    _compat_dereg_mr _compat_dereg_mr,
                    alloc_mw alloc_mw,
                    bind_mw bind_mw,
                    dealloc_mw dealloc_mw,
                    _compat_create_cq _compat_create_cq,
                    poll_cq poll_cq,
                    req_notify_cq req_notify_cq,
                    _compat_cq_event _compat_cq_event,
                    _compat_resize_cq _compat_resize_cq,
                    _compat_destroy_cq _compat_destroy_cq,
                    _compat_create_srq _compat_create_srq,
                    _compat_modify_srq _compat_modify_srq,
                    _compat_query_srq _compat_query_srq,
                    _compat_destroy_srq _compat_destroy_srq,
                    post_srq_recv post_srq_recv,
                    _compat_create_qp _compat_create_qp,
                    _compat_query_qp _compat_query_qp,
                    _compat_modify_qp _compat_modify_qp,
                    _compat_destroy_qp _compat_destroy_qp,
                    post_send post_send,
                    post_recv post_recv,
                    _compat_create_ah _compat_create_ah,
                    _compat_destroy_ah _compat_destroy_ah,
                    _compat_attach_mcast _compat_attach_mcast,
                    _compat_detach_mcast _compat_detach_mcast,
                    _compat_async_event _compat_async_event,
                }
                struct ibv_context ibv_context {
                    device device,
                    ops ops,
                    cmd_fd cmd_fd,
                    async_fd async_fd,
                    num_comp_vectors num_comp_vectors,
                    mutex mutex,
                    abi_compat abi_compat,
                }
                struct ibv_cq_init_attr_ex ibv_cq_init_attr_ex {
                    cqe cqe,
                    cq_context cq_context,
                    channel channel,
                    comp_vector comp_vector,
                    wc_flags wc_flags,
                    comp_mask comp_mask,
                    flags flags,
                    parent_domain parent_domain,
                }
                struct ibv_parent_domain_init_attr ibv_parent_domain_init_attr {
                }
                struct ibv_counters_init_attr ibv_counters_init_attr {
                }
                struct ibv_counters ibv_counters {
                }
                struct ibv_counter_attach_attr ibv_counter_attach_attr {
                }
                struct ibv_values_ex ibv_values_ex {
                }
                struct verbs_context verbs_context {
                    query_port query_port,
                    advise_mr advise_mr,
                    alloc_null_mr alloc_null_mr,
                    read_counters read_counters,
                    attach_counters_point_flow attach_counters_point_flow,
                    create_counters create_counters,
                    destroy_counters destroy_counters,
                    reg_dm_mr reg_dm_mr,
                    alloc_dm alloc_dm,
                    free_dm free_dm,
                    modify_flow_action_esp modify_flow_action_esp,
                    destroy_flow_action destroy_flow_action,
                    create_flow_action_esp create_flow_action_esp,
                    modify_qp_rate_limit modify_qp_rate_limit,
                    alloc_parent_domain alloc_parent_domain,
                    dealloc_td dealloc_td,
                    alloc_td alloc_td,
                    modify_cq modify_cq,
                    post_srq_ops post_srq_ops,
                    destroy_rwq_ind_table destroy_rwq_ind_table,
                    create_rwq_ind_table create_rwq_ind_table,
                    destroy_wq destroy_wq,
                    modify_wq modify_wq,
                    create_wq create_wq,
                    query_rt_values query_rt_values,
                    create_cq_ex create_cq_ex,
                    priv_ priv_,
                    query_device_ex query_device_ex,
                    ibv_destroy_flow ibv_destroy_flow,
                    ABI_placeholder2 ABI_placeholder2,
                    ibv_create_flow ibv_create_flow,
                    ABI_placeholder1 ABI_placeholder1,
                    open_qp open_qp,
                    create_qp_ex create_qp_ex,
                    get_srq_num get_srq_num,
                    create_srq_ex create_srq_ex,
                    open_xrcd open_xrcd,
                    close_xrcd close_xrcd,
                    _ABI_placeholder3 _ABI_placeholder3,
                    sz sz,
                    context context,
                }
                struct sockaddr sockaddr {
                }
                struct sockaddr_storage sockaddr_storage {
                }
                struct sockaddr_in sockaddr_in {
                }
                struct sockaddr_in6 sockaddr_in6 {
                }
                struct ibv_sa_path_rec ibv_sa_path_rec {
                }
                struct rdma_ib_addr rdma_ib_addr {
                    sgid sgid,
                    dgid dgid,
                    pkey pkey,
                }
                struct rdma_addr rdma_addr {
                    __bindgen_anon_1 src_addr_union,
                    __bindgen_anon_2 dst_addr_union,
                    addr addr,
                }
                nested rdma_addr__bindgen_ty_1 src_addr_union_t {
                    src_addr src_addr,
                    src_sin src_sin,
                    src_sin6 src_sin6,
                    src_storage src_storage,
                }
                nested rdma_addr__bindgen_ty_2 dst_addr_union_t {
                    dst_addr dst_addr,
                    dst_sin dst_sin,
                    dst_sin6 dst_sin6,
                    dst_storage dst_storage,
                }
                nested rdma_addr__bindgen_ty_3 addr_union_t {
                    ibaddr ibaddr,
                }
                struct rdma_route rdma_route {
                    addr addr,
                    path_rec path_rec,
                    num_paths num_paths,
                }
                struct rdma_event_channel rdma_event_channel {
                    fd fd,
                }
                struct rdma_cm_id rdma_cm_id {
                    verbs verbs,
                    channel channel,
                    context context,
                    qp qp,
                    route route,
                    ps ps,
                    port_num port_num,
                    event event,
                    send_cq_channel send_cq_channel,
                    send_cq send_cq,
                    recv_cq_channel recv_cq_channel,
                    recv_cq recv_cq,
                    srq srq,
                    pd pd,
                    qp_type qp_type,
                }
                struct rdma_conn_param rdma_conn_param {
                    private_data private_data,
                    private_data_len private_data_len,
                    responder_resources responder_resources,
                    initiator_depth initiator_depth,
                    flow_control flow_control,
                    retry_count retry_count,
                    rnr_retry_count rnr_retry_count,
                    srq srq,
                    qp_num qp_num,
                }
                struct rdma_ud_param rdma_ud_param {
                    private_data private_data,
                    private_data_len private_data_len,
                    ah_attr ah_attr,
                    qp_num qp_num,
                    qkey qkey,
                }
                struct rdma_cm_event rdma_cm_event {
                    id id,
                    listen_id listen_id,
                    event event,
                    status status,
                    param param,
                }
                nested rdma_cm_event__bindgen_ty_1 param_t {
                    conn conn,
                    ud ud,
                }
            }
            constants {
                plain {
                    IBV_DEVICE_RAW_SCATTER_FCS
                    IBV_DEVICE_PCI_WRITE_END_PADDING
                    RDMA_UDP_QKEY
                    IBV_LINK_LAYER_UNSPECIFIED
                    IBV_LINK_LAYER_INFINIBAND
                    IBV_LINK_LAYER_ETHERNET
                    IBV_WC_STANDARD_FLAGS
                    IBV_SYSFS_NAME_MAX
                    IBV_SYSFS_PATH_MAX
                    RDMA_MAX_RESP_RES
                    RDMA_MAX_INIT_DEPTH
                    RDMA_OPTION_ID
                    RDMA_OPTION_IB
                    RDMA_OPTION_ID_TOS
                    RDMA_OPTION_ID_REUSEADDR
                    RDMA_OPTION_ID_AFONLY
                    RDMA_OPTION_ID_ACK_TIMEOUT
                    RDMA_OPTION_IB_PATH
                    OPTIONAL_ACCESS_FLAGS
                }
                ib_uverbs_advise_mr_advice {
                    IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH
                    IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH_WRITE
                    IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT
                }
                ibv_gid_type {
                    IBV_GID_TYPE_IB
                    IBV_GID_TYPE_ROCE_V1
                    IBV_GID_TYPE_ROCE_V2
                }
                ibv_node_type {
                    IBV_NODE_UNKNOWN
                    IBV_NODE_CA
                    IBV_NODE_SWITCH
                    IBV_NODE_ROUTER
                    IBV_NODE_RNIC
                    IBV_NODE_USNIC
                    IBV_NODE_USNIC_UDP
                    IBV_NODE_UNSPECIFIED
                }
                ibv_transport_type {
                    IBV_TRANSPORT_UNKNOWN
                    IBV_TRANSPORT_IB
                    IBV_TRANSPORT_IWARP
                    IBV_TRANSPORT_USNIC
                    IBV_TRANSPORT_USNIC_UDP
                    IBV_TRANSPORT_UNSPECIFIED
                }
                ibv_device_cap_flags {
                    IBV_DEVICE_RESIZE_MAX_WR
                    IBV_DEVICE_BAD_PKEY_CNTR
                    IBV_DEVICE_BAD_QKEY_CNTR
                    IBV_DEVICE_RAW_MULTI
                    IBV_DEVICE_AUTO_PATH_MIG
                    IBV_DEVICE_CHANGE_PHY_PORT
                    IBV_DEVICE_UD_AV_PORT_ENFORCE
                    IBV_DEVICE_CURR_QP_STATE_MOD
                    IBV_DEVICE_SHUTDOWN_PORT
                    IBV_DEVICE_INIT_TYPE
                    IBV_DEVICE_PORT_ACTIVE_EVENT
                    IBV_DEVICE_SYS_IMAGE_GUID
                    IBV_DEVICE_RC_RNR_NAK_GEN
                    IBV_DEVICE_SRQ_RESIZE
                    IBV_DEVICE_N_NOTIFY_CQ
                    IBV_DEVICE_MEM_WINDOW
                    IBV_DEVICE_UD_IP_CSUM
                    IBV_DEVICE_XRC
                    IBV_DEVICE_MEM_MGT_EXTENSIONS
                    IBV_DEVICE_MEM_WINDOW_TYPE_2A
                    IBV_DEVICE_MEM_WINDOW_TYPE_2B
                    IBV_DEVICE_RC_IP_CSUM
                    IBV_DEVICE_RAW_IP_CSUM
                    IBV_DEVICE_MANAGED_FLOW_STEERING
                }
                ibv_atomic_cap {
                    IBV_ATOMIC_NONE
                    IBV_ATOMIC_HCA
                    IBV_ATOMIC_GLOB
                }
                ibv_odp_general_caps {
                    IBV_ODP_SUPPORT
                    IBV_ODP_SUPPORT_IMPLICIT
                }
                ibv_rx_hash_function_flags {
                    IBV_RX_HASH_FUNC_TOEPLITZ
                }
                ibv_rx_hash_fields {
                    IBV_RX_HASH_SRC_IPV4
                    IBV_RX_HASH_DST_IPV4
                    IBV_RX_HASH_SRC_IPV6
                    IBV_RX_HASH_DST_IPV6
                    IBV_RX_HASH_SRC_PORT_TCP
                    IBV_RX_HASH_DST_PORT_TCP
                    IBV_RX_HASH_SRC_PORT_UDP
                    IBV_RX_HASH_DST_PORT_UDP
                    IBV_RX_HASH_IPSEC_SPI
                    IBV_RX_HASH_INNER
                }
                ibv_raw_packet_caps {
                    IBV_RAW_PACKET_CAP_CVLAN_STRIPPING
                    IBV_RAW_PACKET_CAP_SCATTER_FCS
                    IBV_RAW_PACKET_CAP_IP_CSUM
                    IBV_RAW_PACKET_CAP_DELAY_DROP
                }
                ibv_mtu {
                    IBV_MTU_256
                    IBV_MTU_512
                    IBV_MTU_1024
                    IBV_MTU_2048
                    IBV_MTU_4096
                }
                ibv_port_state {
                    IBV_PORT_NOP
                    IBV_PORT_DOWN
                    IBV_PORT_INIT
                    IBV_PORT_ARMED
                    IBV_PORT_ACTIVE
                    IBV_PORT_ACTIVE_DEFER
                }
                ibv_port_cap_flags {
                    IBV_PORT_SM
                    IBV_PORT_NOTICE_SUP
                    IBV_PORT_TRAP_SUP
                    IBV_PORT_OPT_IPD_SUP
                    IBV_PORT_AUTO_MIGR_SUP
                    IBV_PORT_SL_MAP_SUP
                    IBV_PORT_MKEY_NVRAM
                    IBV_PORT_PKEY_NVRAM
                    IBV_PORT_LED_INFO_SUP
                    IBV_PORT_SYS_IMAGE_GUID_SUP
                    IBV_PORT_PKEY_SW_EXT_PORT_TRAP_SUP
                    IBV_PORT_EXTENDED_SPEEDS_SUP
                    IBV_PORT_CAP_MASK2_SUP
                    IBV_PORT_CM_SUP
                    IBV_PORT_SNMP_TUNNEL_SUP
                    IBV_PORT_REINIT_SUP
                    IBV_PORT_DEVICE_MGMT_SUP
                    IBV_PORT_VENDOR_CLASS_SUP
                    IBV_PORT_DR_NOTICE_SUP
                    IBV_PORT_CAP_MASK_NOTICE_SUP
                    IBV_PORT_BOOT_MGMT_SUP
                    IBV_PORT_LINK_LATENCY_SUP
                    IBV_PORT_CLIENT_REG_SUP
                    IBV_PORT_IP_BASED_GIDS
                }
                ibv_event_type {
                    IBV_EVENT_CQ_ERR
                    IBV_EVENT_QP_FATAL
                    IBV_EVENT_QP_REQ_ERR
                    IBV_EVENT_QP_ACCESS_ERR
                    IBV_EVENT_COMM_EST
                    IBV_EVENT_SQ_DRAINED
                    IBV_EVENT_PATH_MIG
                    IBV_EVENT_PATH_MIG_ERR
                    IBV_EVENT_DEVICE_FATAL
                    IBV_EVENT_PORT_ACTIVE
                    IBV_EVENT_PORT_ERR
                    IBV_EVENT_LID_CHANGE
                    IBV_EVENT_PKEY_CHANGE
                    IBV_EVENT_SM_CHANGE
                    IBV_EVENT_SRQ_ERR
                    IBV_EVENT_SRQ_LIMIT_REACHED
                    IBV_EVENT_QP_LAST_WQE_REACHED
                    IBV_EVENT_CLIENT_REREGISTER
                    IBV_EVENT_GID_CHANGE
                    IBV_EVENT_WQ_FATAL
                }
                ibv_wc_status {
                    IBV_WC_SUCCESS
                    IBV_WC_LOC_LEN_ERR
                    IBV_WC_LOC_QP_OP_ERR
                    IBV_WC_LOC_EEC_OP_ERR
                    IBV_WC_LOC_PROT_ERR
                    IBV_WC_WR_FLUSH_ERR
                    IBV_WC_MW_BIND_ERR
                    IBV_WC_BAD_RESP_ERR
                    IBV_WC_LOC_ACCESS_ERR
                    IBV_WC_REM_INV_REQ_ERR
                    IBV_WC_REM_ACCESS_ERR
                    IBV_WC_REM_OP_ERR
                    IBV_WC_RETRY_EXC_ERR
                    IBV_WC_RNR_RETRY_EXC_ERR
                    IBV_WC_LOC_RDD_VIOL_ERR
                    IBV_WC_REM_INV_RD_REQ_ERR
                    IBV_WC_REM_ABORT_ERR
                    IBV_WC_INV_EECN_ERR
                    IBV_WC_INV_EEC_STATE_ERR
                    IBV_WC_FATAL_ERR
                    IBV_WC_RESP_TIMEOUT_ERR
                    IBV_WC_GENERAL_ERR
                    IBV_WC_TM_ERR
                    IBV_WC_TM_RNDV_INCOMPLETE
                }
                ibv_wc_opcode {
                    IBV_WC_SEND
                    IBV_WC_RDMA_WRITE
                    IBV_WC_RDMA_READ
                    IBV_WC_COMP_SWAP
                    IBV_WC_FETCH_ADD
                    IBV_WC_BIND_MW
                    IBV_WC_LOCAL_INV
                    IBV_WC_TSO
                    IBV_WC_ATOMIC_WRITE
                    IBV_WC_RECV
                    IBV_WC_RECV_RDMA_WITH_IMM
                    IBV_WC_TM_ADD
                    IBV_WC_TM_DEL
                    IBV_WC_TM_SYNC
                    IBV_WC_TM_RECV
                    IBV_WC_TM_NO_TAG
                    IBV_WC_DRIVER1
                    IBV_WC_DRIVER2
                    IBV_WC_DRIVER3
                }
                ibv_create_cq_wc_flags {
                    IBV_WC_EX_WITH_BYTE_LEN
                    IBV_WC_EX_WITH_IMM
                    IBV_WC_EX_WITH_QP_NUM
                    IBV_WC_EX_WITH_SRC_QP
                    IBV_WC_EX_WITH_SLID
                    IBV_WC_EX_WITH_SL
                    IBV_WC_EX_WITH_DLID_PATH_BITS
                    IBV_WC_EX_WITH_COMPLETION_TIMESTAMP
                    IBV_WC_EX_WITH_CVLAN
                    IBV_WC_EX_WITH_FLOW_TAG
                    IBV_WC_EX_WITH_TM_INFO
                    IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK
                }
                ibv_wc_flags {
                    IBV_WC_GRH
                    IBV_WC_WITH_IMM
                    IBV_WC_IP_CSUM_OK
                    IBV_WC_WITH_INV
                    IBV_WC_TM_SYNC_REQ
                    IBV_WC_TM_MATCH
                    IBV_WC_TM_DATA_VALID
                }
                ibv_access_flags {
                    IBV_ACCESS_LOCAL_WRITE
                    IBV_ACCESS_REMOTE_WRITE
                    IBV_ACCESS_REMOTE_READ
                    IBV_ACCESS_REMOTE_ATOMIC
                    IBV_ACCESS_MW_BIND
                    IBV_ACCESS_ZERO_BASED
                    IBV_ACCESS_ON_DEMAND
                    IBV_ACCESS_HUGETLB
                    IBV_ACCESS_RELAXED_ORDERING
                }
                ibv_mw_type {
                    IBV_MW_TYPE_1
                    IBV_MW_TYPE_2
                }
                ibv_srq_attr_mask {
                    IBV_SRQ_MAX_WR
                    IBV_SRQ_LIMIT
                }
                ibv_qp_type {
                    IBV_QPT_RC
                    IBV_QPT_UC
                    IBV_QPT_UD
                    IBV_QPT_RAW_PACKET
                    IBV_QPT_XRC_SEND
                    IBV_QPT_XRC_RECV
                    IBV_QPT_DRIVER
                }
                ibv_qp_init_attr_mask {
                    IBV_QP_INIT_ATTR_PD
                    IBV_QP_INIT_ATTR_XRCD
                    IBV_QP_INIT_ATTR_CREATE_FLAGS
                    IBV_QP_INIT_ATTR_MAX_TSO_HEADER
                    IBV_QP_INIT_ATTR_IND_TABLE
                    IBV_QP_INIT_ATTR_RX_HASH
                    IBV_QP_INIT_ATTR_SEND_OPS_FLAGS
                }
                ibv_qp_create_flags {
                    IBV_QP_CREATE_BLOCK_SELF_MCAST_LB
                    IBV_QP_CREATE_SCATTER_FCS
                    IBV_QP_CREATE_CVLAN_STRIPPING
                    IBV_QP_CREATE_SOURCE_QPN
                    IBV_QP_CREATE_PCI_WRITE_END_PADDING
                }
                ibv_qp_create_send_ops_flags {
                    IBV_QP_EX_WITH_RDMA_WRITE
                    IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM
                    IBV_QP_EX_WITH_SEND
                    IBV_QP_EX_WITH_SEND_WITH_IMM
                    IBV_QP_EX_WITH_RDMA_READ
                    IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP
                    IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD
                    IBV_QP_EX_WITH_LOCAL_INV
                    IBV_QP_EX_WITH_BIND_MW
                    IBV_QP_EX_WITH_SEND_WITH_INV
                    IBV_QP_EX_WITH_TSO
                    IBV_QP_EX_WITH_ATOMIC_WRITE
                }
                ibv_qp_attr_mask {
                    IBV_QP_STATE
                    IBV_QP_CUR_STATE
                    IBV_QP_EN_SQD_ASYNC_NOTIFY
                    IBV_QP_ACCESS_FLAGS
                    IBV_QP_PKEY_INDEX
                    IBV_QP_PORT
                    IBV_QP_QKEY
                    IBV_QP_AV
                    IBV_QP_PATH_MTU
                    IBV_QP_TIMEOUT
                    IBV_QP_RETRY_CNT
                    IBV_QP_RNR_RETRY
                    IBV_QP_RQ_PSN
                    IBV_QP_MAX_QP_RD_ATOMIC
                    IBV_QP_ALT_PATH
                    IBV_QP_MIN_RNR_TIMER
                    IBV_QP_SQ_PSN
                    IBV_QP_MAX_DEST_RD_ATOMIC
                    IBV_QP_PATH_MIG_STATE
                    IBV_QP_CAP
                    IBV_QP_DEST_QPN
                    IBV_QP_RATE_LIMIT
                }
                ibv_qp_state {
                    IBV_QPS_RESET
                    IBV_QPS_INIT
                    IBV_QPS_RTR
                    IBV_QPS_RTS
                    IBV_QPS_SQD
                    IBV_QPS_SQE
                    IBV_QPS_ERR
                    IBV_QPS_UNKNOWN
                }
                ibv_mig_state {
                    IBV_MIG_MIGRATED
                    IBV_MIG_REARM
                    IBV_MIG_ARMED
                }
                ibv_wr_opcode {
                    IBV_WR_RDMA_WRITE
                    IBV_WR_RDMA_WRITE_WITH_IMM
                    IBV_WR_SEND
                    IBV_WR_SEND_WITH_IMM
                    IBV_WR_RDMA_READ
                    IBV_WR_ATOMIC_CMP_AND_SWP
                    IBV_WR_ATOMIC_FETCH_AND_ADD
                    IBV_WR_LOCAL_INV
                    IBV_WR_BIND_MW
                    IBV_WR_SEND_WITH_INV
                    IBV_WR_TSO
                    IBV_WR_DRIVER1
                    IBV_WR_ATOMIC_WRITE
                }
                ibv_send_flags {
                    IBV_SEND_FENCE
                    IBV_SEND_SIGNALED
                    IBV_SEND_SOLICITED
                    IBV_SEND_INLINE
                    IBV_SEND_IP_CSUM
                }
                ibv_cq_attr_mask {
                    IBV_CQ_ATTR_MODERATE
                    IBV_CQ_ATTR_RESERVED
                }
                ibv_flow_flags {
                    IBV_FLOW_ATTR_FLAGS_DONT_TRAP
                    IBV_FLOW_ATTR_FLAGS_EGRESS
                }
                ibv_flow_attr_type {
                    IBV_FLOW_ATTR_NORMAL
                    IBV_FLOW_ATTR_ALL_DEFAULT
                    IBV_FLOW_ATTR_MC_DEFAULT
                    IBV_FLOW_ATTR_SNIFFER
                }
                ibv_flow_spec_type {
                    IBV_FLOW_SPEC_ETH
                    IBV_FLOW_SPEC_IPV4
                    IBV_FLOW_SPEC_IPV6
                    IBV_FLOW_SPEC_IPV4_EXT
                    IBV_FLOW_SPEC_ESP
                    IBV_FLOW_SPEC_TCP
                    IBV_FLOW_SPEC_UDP
                    IBV_FLOW_SPEC_VXLAN_TUNNEL
                    IBV_FLOW_SPEC_GRE
                    IBV_FLOW_SPEC_MPLS
                    IBV_FLOW_SPEC_INNER
                    IBV_FLOW_SPEC_ACTION_TAG
                    IBV_FLOW_SPEC_ACTION_DROP
                    IBV_FLOW_SPEC_ACTION_HANDLE
                    IBV_FLOW_SPEC_ACTION_COUNT
                }
                ibv_cq_init_attr_mask {
                    IBV_CQ_INIT_ATTR_MASK_FLAGS
                    IBV_CQ_INIT_ATTR_MASK_PD
                }
                ibv_create_cq_attr_flags {
                    IBV_CREATE_CQ_ATTR_SINGLE_THREADED
                    IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN
                }
                rdma_cm_event_type {
                    RDMA_CM_EVENT_ADDR_RESOLVED
                    RDMA_CM_EVENT_ADDR_ERROR
                    RDMA_CM_EVENT_ROUTE_RESOLVED
                    RDMA_CM_EVENT_ROUTE_ERROR
                    RDMA_CM_EVENT_CONNECT_REQUEST
                    RDMA_CM_EVENT_CONNECT_RESPONSE
                    RDMA_CM_EVENT_CONNECT_ERROR
                    RDMA_CM_EVENT_UNREACHABLE
                    RDMA_CM_EVENT_REJECTED
                    RDMA_CM_EVENT_ESTABLISHED
                    RDMA_CM_EVENT_DISCONNECTED
                    RDMA_CM_EVENT_DEVICE_REMOVAL
                    RDMA_CM_EVENT_MULTICAST_JOIN
                    RDMA_CM_EVENT_MULTICAST_ERROR
                    RDMA_CM_EVENT_ADDR_CHANGE
                    RDMA_CM_EVENT_TIMEWAIT_EXIT
                }
                rdma_port_space {
                    RDMA_PS_IPOIB
                    RDMA_PS_TCP
                    RDMA_PS_UDP
                    RDMA_PS_IB
                }
            }
        }
    };
}
pub(crate) use declared;
