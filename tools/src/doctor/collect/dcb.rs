//! Trust of DSCP and priority flow control of an interface, asked by netlink as `dcb` does
//! (linux/dcbnl.h): one `RTM_GETDCB` with `DCB_CMD_IEEE_GET`. Changes nothing; needs no privilege.
//!
//! An answer is parsed with every length checked; one that makes no sense is no answer.

use std::io;

use rustix::fd::OwnedFd;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

use super::super::facts::{Interface, Quality};

// linux/rtnetlink.h, linux/netlink.h and linux/dcbnl.h.
const RTM_GETDCB: u16 = 78;
const NLM_F_REQUEST: u16 = 1;
const DCB_CMD_IEEE_GET: u8 = 21;
const DCB_ATTR_IFNAME: u16 = 1;
const DCB_ATTR_IEEE: u16 = 13;
const DCB_ATTR_IEEE_PFC: u16 = 2;
const DCB_ATTR_IEEE_APP_TABLE: u16 = 3;
const APP_SELECTOR_DSCP: u8 = 5;
/// Flags in an attribute's type: nested, network order.
const TYPE_FLAGS: u16 = 0xc000;
/// `struct nlmsghdr` and `struct dcbmsg`.
const HEAD_LEN: usize = 20;
/// Longest answer: an application table of 64 DSCP values, and the rest.
const ANSWER_LEN_MAX: usize = 16 << 10;

/// Asks the kernel about an interface; a driver that does not tell leaves it as it is.
pub(super) fn ask(interface: &mut Interface) {
    let Ok(answer) = exchange(&request(&interface.name)) else { return };
    let Some(told) = parse(&answer) else { return };
    let quality = interface.quality.get_or_insert_with(Quality::default);
    quality.trusts_dscp = told.trusts_dscp;
    quality.flow_control = told.flow_control;
}

fn exchange(request: &[u8]) -> io::Result<Vec<u8>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol 0 is NETLINK_ROUTE.
    let socket: OwnedFd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    sendto(&socket, request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    // The kernel answers within the call that asks, so an empty queue means that it does not.
    let mut answer = vec![0; ANSWER_LEN_MAX];
    let (length, _) = recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
    answer.truncate(length);
    Ok(answer)
}

fn request(interface: &str) -> Vec<u8> {
    let name_len = 4 + interface.len() + 1;
    let length = HEAD_LEN + name_len.next_multiple_of(4);
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).unwrap_or(0).to_ne_bytes());
    bytes.extend(RTM_GETDCB.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and sender.
    bytes.extend([0; 8]);
    // struct dcbmsg: family, command, padding.
    bytes.extend([0, DCB_CMD_IEEE_GET, 0, 0]);
    bytes.extend(u16::try_from(name_len).unwrap_or(0).to_ne_bytes());
    bytes.extend(DCB_ATTR_IFNAME.to_ne_bytes());
    bytes.extend(interface.as_bytes());
    bytes.resize(length, 0);
    bytes
}

/// The attributes of a range of bytes: type and content.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (head, _) = bytes.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & !TYPE_FLAGS;
        let content = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, content))
    })
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, content)| content)
}

/// What an answer tells; none if it is an error or no answer to this question.
fn parse(answer: &[u8]) -> Option<Quality> {
    let length = usize::try_from(u32::from_ne_bytes(*answer.first_chunk::<4>()?)).ok()?;
    let kind = u16::from_ne_bytes([*answer.get(4)?, *answer.get(5)?]);
    let body = answer.get(HEAD_LEN..length)?;
    if kind != RTM_GETDCB {
        return None;
    }
    let ieee = find(body, DCB_ATTR_IEEE)?;
    // struct ieee_pfc: how many priorities can, which have it, a bit each.
    let enabled = find(ieee, DCB_ATTR_IEEE_PFC).and_then(|pfc| pfc.get(1).copied());
    // struct dcb_app: selector, priority, protocol. A driver that trusts DSCP has entries of it.
    let by_dscp =
        |table| attributes(table).any(|(_, entry)| entry.first() == Some(&APP_SELECTOR_DSCP));
    let flow_control =
        enabled.map(|bits| (0..8).filter(|priority| bits >> priority & 1 == 1).collect());
    let trusts_dscp = find(ieee, DCB_ATTR_IEEE_APP_TABLE).map(by_dscp);
    Some(Quality { trusts_dscp, flow_control, congestion_notification: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + content.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn answer(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(HEAD_LEN + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEAD_LEN, 0);
        bytes.extend(body);
        bytes
    }

    fn ieee(pfc: &[u8], selectors: &[u8]) -> Vec<u8> {
        let entries: Vec<u8> =
            selectors.iter().flat_map(|s| attribute(1, &[*s, 3, 26, 0])).collect();
        let table = attribute(DCB_ATTR_IEEE_APP_TABLE | 0x8000, &entries);
        let content = [attribute(DCB_ATTR_IEEE_PFC, pfc), table].concat();
        attribute(DCB_ATTR_IEEE | 0x8000, &content)
    }

    #[test]
    fn an_answer_tells_trust_and_flow_control() {
        let name = attribute(DCB_ATTR_IFNAME, b"eth2\0");
        for (row, pfc, selectors, trust, priorities) in [
            ("both", &[8, 0b0000_1000, 0][..], &[1, 5][..], Some(true), Some(vec![3])),
            ("by port number only", &[8, 0], &[1], Some(false), Some(vec![])),
            ("short", &[8], &[], Some(false), None),
        ] {
            let body = [name.clone(), ieee(pfc, selectors)].concat();
            let told = parse(&answer(RTM_GETDCB, &body)).unwrap();
            assert_eq!((told.trusts_dscp, told.flow_control), (trust, priorities), "{row}");
        }
    }

    #[test]
    fn answers_that_make_no_sense_are_none() {
        let good = answer(RTM_GETDCB, &ieee(&[8, 8], &[5]));
        assert!(parse(&good).is_some());
        assert_eq!(parse(&answer(2, &ieee(&[8, 8], &[5]))), None, "an error");
        for length in 0..good.len() {
            // Its own length is wrong then.
            assert_eq!(parse(&good[..length]), None, "{length}");
        }
        for at in 0..good.len() {
            for value in [0, 1, 3, 4, 255] {
                let mut bytes = good.clone();
                bytes[at] = value;
                let _ = parse(&bytes);
            }
        }
    }

    #[test]
    fn a_request_has_the_kernels_form() {
        let bytes = request("eth2");
        assert_eq!(bytes.len(), 32);
        assert_eq!(find(&bytes[HEAD_LEN..], DCB_ATTR_IFNAME), Some(&b"eth2\0"[..]));
        // The loopback interface has no such operations: an error comes, and is no answer.
        let reply = exchange(&request("lo"));
        assert!(reply.is_err() || parse(&reply.unwrap()).is_none());
    }
}
