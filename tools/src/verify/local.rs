//! One port that talks to itself: what of the modes rc and ud can be shown on one host, by bare
//! verbs.

use std::net::IpAddr;

use roceway_runtime::rdma_virtio::verbs::trial::joined::{
    Arrived, Joined, MESSAGES_MAX, Manner, Transport,
};

use super::{Log, Missed, Mode, Seen, Target, patterned};

/// Lengths around powers of two and packet boundaries.
const LENGTHS: [usize; 22] = [
    1, 2, 3, 63, 64, 65, 127, 255, 256, 257, 511, 512, 1023, 1024, 1025, 2048, 4095, 4096, 4097,
    16_384, 65_535, 65_536,
];
/// Checks of a mode, in their order.
const ALL: [&str; 4] = ["integrity", "inline", "unsignalled", "events"];

/// Makes the checks; returns the address of the GID, if there is one.
pub(super) fn checks(log: &mut Log<'_>, target: &Target, mode: Mode) -> Option<IpAddr> {
    let transport = match mode {
        Mode::Rc => Transport::Rc,
        Mode::Ud => Transport::Ud,
        Mode::Raw => return None,
    };
    let mut opened = None;
    log.check("queue_pairs", || {
        let joined = Joined::open(&target.name, target.gid(), transport);
        let joined = joined.map_err(|error| match error.call {
            // What the host lacks says nothing about the NIC.
            "gid" | "getifaddrs" | "ibv_query_port" | "ibv_reg_mr" => {
                Missed::NotTried(error.to_string())
            }
            _ => Missed::failed(error),
        })?;
        let (limits, gid) = (joined.limits(), joined.gid());
        let text = format!(
            "two joined over GID {} {} ({}); path MTU {}, {} elements, inline {} bytes",
            gid.index,
            gid.gid.ip(),
            gid.kind,
            limits.mtu,
            limits.pieces,
            limits.inline
        );
        opened = Some(joined);
        Ok(text)
    });
    let Some(mut joined) = opened else {
        log.not_tried(&ALL, "there are no joined queue pairs");
        return None;
    };
    log.check("integrity", || integrity(&mut joined));
    log.check("inline", || inline(&mut joined));
    log.check("unsignalled", || unsignalled(&mut joined));
    log.check("events", || events(&mut joined));
    if mode == Mode::Rc {
        log.check("asynchronous_events", || {
            let time = joined.run_low().map_err(Missed::failed)?;
            Ok(format!("a shared receive queue that ran low said so after {time:.1?}"))
        });
    }
    Some(joined.gid().gid.ip())
}

/// Messages there, and compared.
fn compared(joined: &mut Joined, messages: &[Vec<u8>], manner: &Manner) -> Result<Arrived, Missed> {
    let given: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    let arrived = joined.exchange(&given, manner).map_err(Missed::failed)?;
    if arrived.strays > 0 {
        let what = format!("{} bytes were written behind messages", arrived.strays);
        return Err(Missed::Failed(what));
    }
    let wrong = messages.iter().zip(&arrived.messages).find(|(sent, came)| sent != came);
    match wrong {
        Some((sent, came)) => Err(Missed::Failed(difference(sent, came))),
        None if arrived.messages.len() != messages.len() => Err(Missed::Failed(format!(
            "{} of {} messages came",
            arrived.messages.len(),
            messages.len()
        ))),
        None => Ok(arrived),
    }
}

/// In what a message differs from what was sent.
pub(super) fn difference(sent: &[u8], came: &[u8]) -> String {
    if sent.len() != came.len() {
        return format!("{} bytes came of {} that were sent", came.len(), sent.len());
    }
    let at = sent.iter().zip(came).position(|(a, b)| a != b).unwrap_or(0);
    let count = sent.iter().zip(came).filter(|(a, b)| a != b).count();
    format!(
        "{count} of {} bytes differ, the first at {at}: {:#04x} instead of {:#04x}",
        sent.len(),
        came.get(at).copied().unwrap_or(0),
        sent.get(at).copied().unwrap_or(0)
    )
}

fn integrity(joined: &mut Joined) -> Seen {
    let limits = joined.limits();
    let (mut messages, mut bytes) = (0, 0);
    let mut number = 0;
    for pieces in [1, 2, limits.pieces] {
        for length in LENGTHS.into_iter().filter(|length| *length <= limits.message) {
            number += 1;
            let message = vec![patterned(number, length)];
            compared(joined, &message, &Manner { pieces, ..Manner::default() })?;
            messages += 1;
            bytes += length;
        }
    }
    let burst: Vec<Vec<u8>> =
        (1000_u64..).take(MESSAGES_MAX).map(|number| patterned(number, 700)).collect();
    compared(joined, &burst, &Manner { signal_all: true, ..Manner::default() })?;
    messages += burst.len();
    bytes += 700 * burst.len();
    Ok(format!(
        "{messages} messages of 1 to {} bytes in 1 to {} elements, {bytes} bytes, all as sent and \
         none written behind",
        LENGTHS.into_iter().filter(|length| *length <= limits.message).max().unwrap_or(0),
        limits.pieces
    ))
}

fn inline(joined: &mut Joined) -> Seen {
    let limits = joined.limits();
    if limits.inline == 0 {
        return Err(Missed::NotTried("the device gives no inline sends".to_owned()));
    }
    let manner = Manner { inline: true, ..Manner::default() };
    let longest = limits.inline.min(limits.message);
    for length in [1, longest / 2, longest] {
        let message = vec![patterned(7, length.max(1))];
        compared(joined, &message, &manner)?;
    }
    Ok(format!("{longest} bytes came as they were, although overwritten once they were posted"))
}

/// One completion stands for all sends before it, which is how few completions suffice.
fn unsignalled(joined: &mut Joined) -> Seen {
    let messages: Vec<Vec<u8>> =
        (1_u64..).take(MESSAGES_MAX).map(|number| patterned(number, 100)).collect();
    let arrived = compared(joined, &messages, &Manner::default())?;
    if arrived.send_completions != 1 {
        let what = format!("{} completions for 1 signalled send", arrived.send_completions);
        return Err(Missed::Failed(what));
    }
    Ok(format!("{MESSAGES_MAX} sends in one list, 1 completion for the last, all came"))
}

fn events(joined: &mut Joined) -> Seen {
    let message = vec![patterned(9, 64)];
    let mut events = 0;
    for _ in 0..5 {
        let manner = Manner { asleep: true, ..Manner::default() };
        let arrived = compared(joined, &message, &manner)?;
        if arrived.events == 0 {
            return Err(Missed::failed("the channel was readable without an event"));
        }
        events += arrived.events;
    }
    Ok(format!("5 of 5 sleeps were ended by the completion channel, {events} events"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_told_with_place_and_bytes() {
        assert_eq!(
            difference(&[1, 2, 3], &[1, 9, 3]),
            "1 of 3 bytes differ, the first at 1: 0x09 instead of 0x02"
        );
        assert_eq!(difference(&[1, 2], &[1]), "1 bytes came of 2 that were sent");
    }
}
