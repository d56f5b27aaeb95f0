//! Lists of work requests: what the library is handed, byte by byte.

use super::*;
use crate::nic::Lkey;

fn sge(addr: u64, length: u32) -> Sge {
    Sge { addr, length, lkey: Lkey(7) }
}

/// Id, opcode, flags, and address, length and lkey of each element.
type ReadSend = (u64, u32, u32, Vec<(u64, u32, u32)>);

/// Reads a chain of sends as the library does.
fn read_sends(mut at: *mut sys::ibv_send_wr) -> Vec<ReadSend> {
    let mut read = Vec::new();
    // SAFETY: a chain that a list has made; it ends with null.
    while let Some(wr) = unsafe { at.as_ref() } {
        let count = usize::try_from(wr.num_sge).unwrap();
        // SAFETY: as many elements as the request says.
        let sges = unsafe { std::slice::from_raw_parts(wr.sg_list, count) };
        let sges = sges.iter().map(|sge| (sge.addr, sge.length, sge.lkey)).collect();
        read.push((wr.wr_id, wr.opcode, wr.send_flags, sges));
        at = wr.next;
    }
    read
}

fn request<'a>(wr_id: u64, sges: &'a [Sge]) -> SendRequest<'a> {
    SendRequest {
        wr_id,
        sges,
        operation: Operation::Send,
        signalled: false,
        solicited: false,
        checksum: false,
        destination: None,
    }
}

#[test]
fn a_list_is_handed_over_as_one_chain_in_order() {
    let mut list = SendList::new(SendListSize { requests: 3, sges: 2, header: 0, copies: false });
    let (one, two) = ([sge(16, 1)], [sge(32, 2), sge(48, 3)]);
    list.push(&SendRequest { signalled: true, ..request(1, &one) }).unwrap();
    list.push(&SendRequest { checksum: true, ..request(2, &two) }).unwrap();
    // SAFETY: nothing is posted, so nothing is read.
    unsafe { list.push_inline(&SendRequest { solicited: true, ..request(3, &[]) }) }.unwrap();
    assert_eq!(list.push(&request(4, &one)), Err(PushError::Full));
    assert_eq!(list.len(), 3);
    let mut seen = Vec::new();
    let posted = list.post(|head, _bad| {
        seen = read_sends(head);
        0
    });
    posted.unwrap();
    let expected = [
        (1, 2, 1 << 1, vec![(16, 1, 7)]),
        (2, 2, 1 << 4, vec![(32, 2, 7), (48, 3, 7)]),
        (3, 2, 1 << 2 | 1 << 3, vec![]),
    ];
    assert_eq!(seen, expected);
    assert!(list.is_empty());
}

#[test]
fn what_could_not_be_posted_stays_and_goes_first_the_next_time() {
    let mut list = SendList::new(SendListSize { requests: 4, sges: 1, header: 0, copies: false });
    for wr_id in 0..4 {
        list.push(&request(wr_id, &[sge(0, 1)])).unwrap();
    }
    let refused = list.post(|head, bad| {
        // SAFETY: the chain has four requests.
        let second = unsafe { (*head).next };
        // SAFETY: as above.
        *bad = unsafe { (*second).next };
        libc::ENOMEM
    });
    assert_eq!(refused, Err(PostFailure { posted: 2, errno: libc::ENOMEM }));
    assert_eq!(list.len(), 2);
    let mut seen = Vec::new();
    let posted = list.post(|head, _bad| {
        seen = read_sends(head);
        0
    });
    posted.unwrap();
    assert_eq!(seen.iter().map(|wr| wr.0).collect::<Vec<_>>(), [2, 3]);
    list.push(&request(9, &[])).unwrap();
    assert_eq!(list.len(), 1, "the whole list is free again");
}

#[test]
fn all_count_as_posted_if_the_bad_request_is_none_of_the_list() {
    let mut list = ReceiveList::new(2, 1);
    list.push(1, &[sge(0, 1)]).unwrap();
    let refused = list.post(|_head, bad| {
        *bad = ptr::null_mut();
        libc::EINVAL
    });
    assert_eq!(refused, Err(PostFailure { posted: 1, errno: libc::EINVAL }));
    assert!(list.is_empty(), "what they name may be the device's");
}

#[test]
fn a_header_for_segmentation_is_copied_beside_its_request() {
    let mut list = SendList::new(SendListSize { requests: 2, sges: 1, header: 4, copies: false });
    let payload = [sge(64, 9)];
    for (wr_id, header) in [(1, [1, 2, 3]), (2, [4, 5, 6])] {
        let operation = Operation::Tso { header: &header, mss: 1448 };
        list.push(&SendRequest { operation, ..request(wr_id, &payload) }).unwrap();
    }
    let mut seen = Vec::new();
    let posted = list.post(|mut at, _bad| {
        // SAFETY: a chain that ends with null.
        while let Some(wr) = unsafe { at.as_ref() } {
            // SAFETY: a send with segmentation, which sets this member.
            let tso = unsafe { wr.__bindgen_anon_2.tso };
            // SAFETY: as many bytes as it says.
            let header = unsafe {
                std::slice::from_raw_parts(tso.hdr.cast::<u8>(), usize::from(tso.hdr_sz))
            };
            seen.push((wr.opcode, header.to_vec(), tso.mss));
            at = wr.next;
        }
        0
    });
    posted.unwrap();
    assert_eq!(seen, [(10, vec![1, 2, 3], 1448), (10, vec![4, 5, 6], 1448)]);
    let operation = Operation::Tso { header: &[0; 5], mss: 1 };
    let refused = list.push(&SendRequest { operation, ..request(3, &payload) });
    assert_eq!((refused, list.len()), (Err(PushError::Header), 0));
}

#[test]
fn receives_are_chained_and_too_many_elements_are_refused() {
    let mut list = ReceiveList::new(2, 1);
    list.push(5, &[sge(16, 4)]).unwrap();
    assert_eq!(list.push(6, &[sge(0, 1), sge(1, 1)]), Err(PushError::SgeCount));
    list.push(7, &[]).unwrap();
    let mut seen = Vec::new();
    let posted = list.post(|mut at, _bad| {
        // SAFETY: a chain that ends with null.
        while let Some(wr) = unsafe { at.as_ref() } {
            seen.push((wr.wr_id, wr.num_sge));
            at = wr.next;
        }
        0
    });
    posted.unwrap();
    assert_eq!(seen, [(5, 1), (7, 0)]);
}
