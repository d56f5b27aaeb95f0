//! The layouts of `abi` against the system's own header, compiled by the system's own compiler.
//! Skipped, by name, where there is no compiler or no `infiniband/verbs.h`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::mem::{offset_of, size_of};
use std::process::Command;

use verbs_double::abi::flows as flow;
use verbs_double::abi::objects::*;
use verbs_double::abi::tables::*;
use verbs_double::abi::work::*;

/// C type, C member (empty for the size), and what is here.
type Row = (&'static str, &'static str, usize);

macro_rules! rows {
    ($($ours:ty as $theirs:literal {
        $($member:ident $(. $inner:ident)* $(= $name:literal)?),* $(,)?
    })+) => {{
        let mut rows: Vec<Row> = Vec::new();
        $(
            rows.push(($theirs, "", size_of::<$ours>()));
            $(
                let name = [$($name,)? stringify!($member $(. $inner)*)][0];
                rows.push(($theirs, name, offset_of!($ours, $member $(. $inner)*)));
            )*
        )+
        rows
    }};
}

fn objects() -> Vec<Row> {
    rows! {
        Device as "struct ibv_device" {
            node_type, transport_type, name, dev_name, dev_path, ibdev_path
        }
        DeviceAttr as "struct ibv_device_attr" {
            fw_ver, node_guid, sys_image_guid, max_mr_size, page_size_cap, vendor_id,
            vendor_part_id, hw_ver, max_qp, max_qp_wr, device_cap_flags, max_sge, max_sge_rd,
            max_cq, max_cqe, max_mr, max_pd, max_qp_rd_atom, atomic_cap, max_ee, max_mw,
            max_raw_ethy_qp, max_mcast_grp, max_ah, max_fmr, max_srq, max_srq_wr, max_srq_sge,
            max_pkeys, local_ca_ack_delay, phys_port_cnt,
        }
        DeviceAttrEx as "struct ibv_device_attr_ex" {
            comp_mask, odp_caps, completion_timestamp_mask, hca_core_clock, device_cap_flags_ex,
            tso_caps, rss_caps, max_wq_type_rq, packet_pacing_caps, raw_packet_caps, tm_caps,
            cq_mod_caps, max_dm_size, pci_atomic_caps, xrc_odp_caps, phys_port_cnt_ex,
        }
        PortAttr as "struct ibv_port_attr" {
            compat.state = "state", compat.max_mtu = "max_mtu", compat.active_mtu = "active_mtu",
            compat.gid_tbl_len = "gid_tbl_len", compat.port_cap_flags = "port_cap_flags",
            compat.max_msg_sz = "max_msg_sz", compat.bad_pkey_cntr = "bad_pkey_cntr",
            compat.qkey_viol_cntr = "qkey_viol_cntr", compat.pkey_tbl_len = "pkey_tbl_len",
            compat.lid = "lid", compat.lmc = "lmc", compat.active_width = "active_width",
            compat.phys_state = "phys_state", compat.link_layer = "link_layer",
            compat.flags = "flags", port_cap_flags2,
        }
        GidEntry as "struct ibv_gid_entry" { gid, gid_index, port_num, gid_type, ndev_ifindex }
    }
}

fn queues() -> Vec<Row> {
    rows! {
        Pd as "struct ibv_pd" { context, handle }
        Mr as "struct ibv_mr" { context, pd, addr, length, handle, lkey, rkey }
        AhAttr as "struct ibv_ah_attr" {
            dgid = "grh.dgid", flow_label = "grh.flow_label", sgid_index = "grh.sgid_index",
            hop_limit = "grh.hop_limit", traffic_class = "grh.traffic_class", dlid, sl,
            src_path_bits, static_rate, is_global, port_num,
        }
        Ah as "struct ibv_ah" { context, pd, handle }
        SrqAttr as "struct ibv_srq_attr" { max_wr, max_sge, srq_limit }
        SrqInitAttr as "struct ibv_srq_init_attr" { srq_context, attr }
        Srq as "struct ibv_srq" {
            context, srq_context, pd, handle, waiting.mutex = "mutex", waiting.cond = "cond",
            events_completed,
        }
        QpCap as "struct ibv_qp_cap" {
            max_send_wr, max_recv_wr, max_send_sge, max_recv_sge, max_inline_data
        }
        QpInitAttr as "struct ibv_qp_init_attr" {
            qp_context, send_cq, recv_cq, srq, cap, qp_type, sq_sig_all
        }
        QpAttr as "struct ibv_qp_attr" {
            qp_state, cur_qp_state, path_mtu, path_mig_state, qkey, rq_psn, sq_psn, dest_qp_num,
            qp_access_flags, cap, ah_attr, alt_ah_attr, pkey_index, alt_pkey_index,
            en_sqd_async_notify, sq_draining, max_rd_atomic, max_dest_rd_atomic, min_rnr_timer,
            port_num, timeout, retry_cnt, rnr_retry, alt_port_num, alt_timeout, rate_limit,
        }
        Qp as "struct ibv_qp" {
            context, qp_context, pd, send_cq, recv_cq, srq, handle, qp_num, state, qp_type,
            waiting.mutex = "mutex", events_completed,
        }
        CompChannel as "struct ibv_comp_channel" { context, fd, refcnt }
        Cq as "struct ibv_cq" {
            context, channel, cq_context, handle, cqe, waiting.mutex = "mutex",
            comp_events_completed, async_events_completed,
        }
        AsyncEvent as "struct ibv_async_event" { element, event_type }
        ContextOps as "struct ibv_context_ops" {
            alloc_mw, bind_mw, dealloc_mw, poll_cq, req_notify_cq, post_srq_recv, post_send,
            post_recv,
        }
        Context as "struct ibv_context" {
            device, ops, cmd_fd, async_fd, num_comp_vectors, mutex, abi_compat
        }
        DataBuf as "struct ibv_data_buf" { addr, length }
    }
}

fn extended() -> Vec<Row> {
    rows! {
        QpInitAttrEx as "struct ibv_qp_init_attr_ex" {
            comp_mask, pd, xrcd, create_flags, max_tso_header, rwq_ind_tbl,
            rx_hash_function = "rx_hash_conf.rx_hash_function",
            rx_hash_key = "rx_hash_conf.rx_hash_key",
            rx_hash_fields_mask = "rx_hash_conf.rx_hash_fields_mask", source_qpn, send_ops_flags,
        }
        CqInitAttrEx as "struct ibv_cq_init_attr_ex" {
            cqe, cq_context, channel, comp_vector, wc_flags, comp_mask, flags, parent_domain
        }
        VerbsContext as "struct verbs_context" {
            query_port, advise_mr, alloc_null_mr, reg_dm_mr, alloc_dm, free_dm,
            modify_qp_rate_limit, alloc_parent_domain, modify_cq, post_srq_ops, modify_wq,
            create_wq, query_rt_values, create_cq_ex, private = "priv", query_device_ex,
            destroy_flow = "ibv_destroy_flow", create_flow = "ibv_create_flow", open_qp,
            create_qp_ex, get_srq_num, create_srq_ex, open_xrcd, close_xrcd, sz, context,
        }
        QpEx as "struct ibv_qp_ex" {
            comp_mask, wr_id, wr_flags, wr_atomic_cmp_swp, wr_rdma_read, wr_rdma_write,
            wr_rdma_write_imm, wr_send, wr_send_imm, wr_send_tso, wr_set_ud_addr,
            wr_set_inline_data, wr_set_inline_data_list, wr_set_sge, wr_set_sge_list, wr_start,
            wr_complete, wr_abort, wr_atomic_write,
        }
        CqEx as "struct ibv_cq_ex" {
            comp_mask, status, wr_id, start_poll, next_poll, end_poll, read_opcode,
            read_vendor_err, read_byte_len, read_imm_data, read_qp_num, read_src_qp,
            read_wc_flags, read_slid, read_sl, read_dlid_path_bits, read_completion_ts,
            read_cvlan, read_flow_tag, read_tm_info, read_completion_wallclock_ns,
        }
        Sge as "struct ibv_sge" { addr, length, lkey }
        SendWr as "struct ibv_send_wr" {
            wr_id, next, sg_list, num_sge, opcode, send_flags, imm_data, wr,
            remote_srqn = "qp_type", tail = "tso",
        }
        RecvWr as "struct ibv_recv_wr" { wr_id, next, sg_list, num_sge }
        Wc as "struct ibv_wc" {
            wr_id, status, opcode, vendor_err, byte_len, imm_data, qp_num, src_qp, wc_flags,
            pkey_index, slid, sl, dlid_path_bits,
        }
        flow::FlowAttr as "struct ibv_flow_attr" {
            comp_mask, attr_type = "type", size, priority, num_of_specs, port, flags
        }
        flow::Flow as "struct ibv_flow" { comp_mask, context, handle }
    }
}

/// Offsets inside of unions and of specifications, which are read as words and bytes.
fn parts() -> Vec<Row> {
    let send = "struct ibv_send_wr";
    let (wr, tail) = (offset_of!(SendWr, wr), offset_of!(SendWr, tail));
    vec![
        (send, "wr.rdma.remote_addr", wr),
        (send, "wr.rdma.rkey", wr + 8),
        (send, "wr.ud.ah", wr),
        (send, "wr.ud.remote_qpn", wr + 8),
        (send, "wr.ud.remote_qkey", wr + 12),
        (send, "tso.hdr", tail),
        (send, "tso.hdr_sz", tail + 8),
        (send, "tso.mss", tail + 10),
        ("struct ibv_flow_spec_eth", "", flow::SPEC_ETH_SIZE),
        ("struct ibv_flow_spec_eth", "val", flow::SPEC_ETH_VALUE),
        ("struct ibv_flow_spec_eth", "mask", flow::SPEC_ETH_VALUE + flow::ETH_FILTER),
        ("struct ibv_flow_spec_ipv4", "", flow::SPEC_IPV4_SIZE),
        ("struct ibv_flow_spec_ipv4", "val", flow::SPEC_WORD_VALUE),
        ("struct ibv_flow_spec_ipv4", "mask", flow::SPEC_WORD_VALUE + flow::IPV4_FILTER),
        ("struct ibv_flow_spec_ipv6", "", flow::SPEC_IPV6_SIZE),
        ("struct ibv_flow_spec_ipv6", "mask", flow::SPEC_WORD_VALUE + flow::IPV6_FILTER),
        ("struct ibv_flow_spec_tcp_udp", "", flow::SPEC_PORTS_SIZE),
        ("struct ibv_flow_spec_tcp_udp", "mask", flow::SPEC_ETH_VALUE + flow::PORTS_FILTER),
        ("struct ibv_flow_spec_action_tag", "", flow::SPEC_TAG_SIZE),
        ("struct ibv_flow_spec_action_tag", "tag_id", 8),
        ("struct ibv_flow_spec_action_drop", "", flow::SPEC_DROP_SIZE),
    ]
}

fn skipped(reason: &str) {
    // Past the test harness, which keeps the output of tests that pass to itself.
    let test = "every_layout_is_that_of_the_systems_header";
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
}

#[test]
fn every_layout_is_that_of_the_systems_header() {
    if !std::path::Path::new("/usr/include/infiniband/verbs.h").exists() {
        return skipped("no infiniband/verbs.h; install libibverbs-dev");
    }
    let rows = [objects(), queues(), extended(), parts()].concat();
    let mut source = String::from(
        "#include <infiniband/verbs.h>\n#include <stddef.h>\n#include <stdio.h>\n\
         int main(void) {\n",
    );
    for (theirs, member, _) in &rows {
        let value = match *member {
            "" => format!("sizeof({theirs})"),
            member => format!("offsetof({theirs}, {member})"),
        };
        writeln!(source, "printf(\"%zu\\n\", {value});").unwrap();
    }
    source.push_str("return 0; }\n");
    let folder = tempfile::tempdir().unwrap();
    let (text, program) = (folder.path().join("layout.c"), folder.path().join("layout"));
    std::fs::write(&text, source).unwrap();
    let compiled = Command::new("cc").arg(&text).arg("-o").arg(&program).output();
    let Ok(compiled) = compiled else { return skipped("no C compiler; install gcc") };
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let output = Command::new(&program).output().unwrap();
    let values = String::from_utf8(output.stdout).unwrap();
    let values: Vec<usize> = values.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(values.len(), rows.len());
    for ((theirs, member, ours), value) in rows.iter().zip(values) {
        assert_eq!(*ours, value, "{theirs}.{member}");
    }
    println!("{} sizes and offsets", rows.len());
}
