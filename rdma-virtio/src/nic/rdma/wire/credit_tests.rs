//! Credits by hand, and two ends over a wire that loses, doubles and overtakes.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn header(kind: Kind, sequence: u32, limit: u32, echo: u32) -> Header {
    Header { kind, session: 0, incarnation: 0, sequence, limit, echo }
}

#[test]
fn a_peer_that_breaks_the_rules_is_found_out() {
    use Delivery::{Datagram, Reliable};
    let data = |sequence| header(Kind::Data, sequence, 4, 4);
    let control = |sequence| header(Kind::Credit, sequence, 4, 4);
    let rows = [
        ("in order", Reliable, data(0), Arrival::Fresh { missing: 0 }),
        ("a gap", Reliable, data(1), Arrival::Violation(Violation::Order)),
        ("a gap in datagrams", Datagram, data(3), Arrival::Fresh { missing: 3 }),
        ("beyond", Reliable, data(4), Arrival::Violation(Violation::BeyondCredit)),
        ("beyond", Datagram, data(4), Arrival::Violation(Violation::BeyondCredit)),
        ("far beyond", Datagram, data(1 << 30), Arrival::Violation(Violation::BeyondCredit)),
        ("behind", Reliable, data(u32::MAX), Arrival::Violation(Violation::Order)),
        ("behind", Datagram, data(u32::MAX), Arrival::Duplicate),
        ("control in order", Reliable, control(0), Arrival::Control { missing: 0 }),
        ("control after all", Datagram, control(4), Arrival::Control { missing: 4 }),
        ("control beyond", Datagram, control(5), Arrival::Violation(Violation::BeyondCredit)),
        ("control early", Reliable, control(1), Arrival::Violation(Violation::Order)),
        ("echo", Reliable, header(Kind::Data, 0, 4, 5), Arrival::Violation(Violation::Echo)),
        (
            "limit",
            Reliable,
            header(Kind::Data, 0, CREDITS_MAX + 1, 4),
            Arrival::Violation(Violation::Limit),
        ),
        ("an old limit", Reliable, header(Kind::Data, 0, 3, 4), Arrival::Fresh { missing: 0 }),
    ];
    for (name, delivery, header, expected) in rows {
        assert_eq!(Credit::new(delivery, 4, 4).on_header(&header), expected, "{name}");
    }
}

#[test]
fn late_datagrams_are_taken_once() {
    let mut credit = Credit::new(Delivery::Datagram, 200, 0);
    let mut arrive = |sequence| credit.on_header(&header(Kind::Data, sequence, 0, 200));
    assert_eq!(arrive(2), Arrival::Fresh { missing: 2 });
    assert_eq!(arrive(0), Arrival::Late);
    assert_eq!(arrive(0), Arrival::Duplicate);
    assert_eq!(arrive(2), Arrival::Duplicate);
    assert_eq!(arrive(100), Arrival::Fresh { missing: 97 });
    assert_eq!(arrive(1), Arrival::Duplicate, "too late to know");
    assert_eq!(arrive(100 - LATE_MAX + 1), Arrival::Late);
    assert_eq!(arrive(100 - LATE_MAX), Arrival::Duplicate);
}

#[test]
fn at_most_one_update_is_on_its_way_until_it_was_seen() {
    let mut credit = Credit::new(Delivery::Reliable, 4, 0);
    for sequence in 0..4 {
        let _ = credit.on_header(&header(Kind::Data, sequence, 0, 4));
        credit.grant(1);
    }
    assert_eq!(credit.owed(0, false), Owed::Update);
    let update = credit.control_header(Kind::Credit, (0, 0), 0);
    assert_eq!((update.limit, credit.owed(0, false)), (8, Owed::Nothing));
    // Messages that were under way before the update arrived do not show it.
    for sequence in 4..6 {
        let _ = credit.on_header(&header(Kind::Data, sequence, 0, 4));
        credit.grant(1);
    }
    assert_eq!(credit.owed(u64::MAX, false), Owed::Nothing);
    let _ = credit.on_header(&header(Kind::Data, 6, 0, 8));
    credit.grant(1);
    assert_eq!(credit.owed(0, false), Owed::Update);
}

#[test]
fn data_carries_credits_and_saves_the_update() {
    let mut credit = Credit::new(Delivery::Reliable, 4, 4);
    for sequence in 0..3 {
        let _ = credit.on_header(&header(Kind::Data, sequence, 4, 4));
        credit.grant(1);
    }
    assert_eq!(credit.data_header(0, 0).limit, 7);
    assert_eq!(credit.owed(0, false), Owed::Nothing);
    assert_eq!(credit.available(), 3);
    credit.unsend();
    assert_eq!(credit.available(), 4);
}

/// Two ends, each with so many receives, and what is between them.
struct Pair {
    ends: [Credit; 2],
    posted: [u32; 2],
    wires: [VecDeque<Header>; 2],
    waiting: [u32; 2],
    controls: [u32; 2],
    delivery: Delivery,
    accepted: [u32; 2],
    now_ns: u64,
}

const RECEIVES: u32 = 5;

impl Pair {
    fn new(delivery: Delivery) -> Pair {
        let credit = || Credit::new(delivery, RECEIVES - 1, RECEIVES - 1);
        Pair {
            ends: [credit(), credit()],
            posted: [RECEIVES; 2],
            wires: [VecDeque::new(), VecDeque::new()],
            waiting: [0; 2],
            controls: [0; 2],
            delivery,
            accepted: [0; 2],
            now_ns: 0,
        }
    }

    /// Sends what may be sent; on a reliable wire everything on its way must find a receive.
    fn send(&mut self, end: usize) {
        while self.waiting[end] > 0 && self.ends[end].available() > 0 {
            self.waiting[end] -= 1;
            let header = self.ends[end].data_header(0, 0);
            self.wires[end].push_back(header);
        }
        let starved = self.waiting[end] > 0;
        let kind = match self.ends[end].owed(self.now_ns, starved) {
            Owed::Nothing => return,
            Owed::Update => Kind::Credit,
            Owed::Probe => Kind::Probe,
        };
        let header = self.ends[end].control_header(kind, (0, 0), self.now_ns);
        self.controls[end] += 1;
        self.wires[end].push_back(header);
        if self.delivery == Delivery::Reliable {
            let on_its_way = u32::try_from(self.wires[end].len()).unwrap();
            assert!(on_its_way <= self.posted[1 - end], "a message would find no receive");
        }
    }

    fn deliver(&mut self, end: usize, header: &Header) {
        let to = 1 - end;
        // As the engine does it: by a look at the header, if that is enough.
        self.ends[to].calm_down(1);
        let is_plain = header.kind == Kind::Data && self.ends[to].take_next(&header.encode());
        let arrival =
            if is_plain { Arrival::Fresh { missing: 0 } } else { self.ends[to].on_header(header) };
        match arrival {
            Arrival::Fresh { .. } | Arrival::Late => {
                self.accepted[to] += 1;
                let held = self.ends[to].outstanding();
                self.ends[to].grant((RECEIVES - 1).saturating_sub(held));
            }
            Arrival::Control { .. } => {
                let held = self.ends[to].outstanding();
                self.ends[to].grant((RECEIVES - 1).saturating_sub(held));
            }
            Arrival::Duplicate => {}
            Arrival::Violation(violation) => panic!("{violation:?} of an honest peer"),
        }
        assert!(self.ends[to].outstanding() < self.posted[to]);
    }

    /// All is delivered that still comes; time passes.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            self.send(0);
            self.send(1);
            self.now_ns += REPEAT_NS;
            for end in 0..2 {
                while let Some(header) = self.wires[end].pop_front() {
                    self.deliver(end, &header);
                }
            }
            if self.waiting == [0; 2] {
                return;
            }
        }
        panic!("a deadlock: {:?}", self.ends);
    }
}

proptest! {
    #[test]
    fn a_reliable_pair_never_lacks_a_receive_nor_stops(
        steps in proptest::collection::vec((0_usize..2, 0_u8..3, 1_u32..9), 1..400)
    ) {
        let mut pair = Pair::new(Delivery::Reliable);
        let mut total = [0; 2];
        for (end, what, count) in steps {
            match what {
                0 => { pair.waiting[end] += count; total[end] += count; pair.send(end); }
                1 => pair.send(end),
                _ => for _ in 0..count {
                    if let Some(header) = pair.wires[end].pop_front() {
                        pair.deliver(end, &header);
                    }
                }
            }
        }
        pair.settle();
        prop_assert_eq!([pair.accepted[1], pair.accepted[0]], total);
        // An update tells of two messages at least, but for the very last.
        prop_assert!(pair.controls[0] <= total[1] / 2 + 2, "{:?} {:?}", pair.controls, total);
    }

    #[test]
    fn datagrams_that_are_lost_doubled_and_overtaken_never_stop_the_wire(
        steps in proptest::collection::vec((0_usize..2, 0_u8..6, 0_usize..9), 1..400)
    ) {
        let mut pair = Pair::new(Delivery::Datagram);
        let mut total = [0_u32; 2];
        for (end, what, which) in steps {
            match what {
                0 | 1 => { pair.waiting[end] += 3; total[end] += 3; pair.send(end); }
                2 => { pair.wires[end].remove(which); }
                3 => if let Some(header) = pair.wires[end].get(which).copied() {
                    pair.deliver(end, &header);
                },
                4 => if let Some(header) = pair.wires[end].remove(which) {
                    pair.deliver(end, &header);
                },
                _ => { pair.now_ns += REPEAT_NS; pair.send(end); }
            }
        }
        pair.settle();
        prop_assert!(pair.accepted[1] <= total[0] && pair.accepted[0] <= total[1]);
    }
}

/// The short way refuses what only the long way may judge, and changes nothing then.
#[test]
fn a_lying_message_is_not_taken_the_short_way() {
    let header = |sequence, limit, echo| {
        Header { kind: Kind::Data, session: 1, incarnation: 2, sequence, limit, echo }.encode()
    };
    let rows = [
        ("an echo of what was never granted", header(0, 8, 9)),
        ("not the next one", header(1, 8, 8)),
        ("more than may be granted", header(0, 8 + CREDITS_MAX + 1, 8)),
        ("less than was granted", header(0, 7, 8)),
    ];
    for (name, head) in rows {
        let mut credit = Credit::new(Delivery::Reliable, 8, 8);
        credit.calm_down(8);
        assert!(!credit.take_next(&head), "{name}");
        assert_eq!((credit.received(), credit.available()), (0, 8), "{name}");
    }
    let mut credit = Credit::new(Delivery::Reliable, 8, 8);
    assert!(!credit.take_next(&header(0, 9, 8)), "nobody looked how many may come");
    credit.calm_down(8);
    assert!(credit.take_next(&header(0, 9, 8)));
    assert_eq!((credit.received(), credit.available()), (1, 9));
    assert!(credit.take_next(&header(1, 9, 8)), "limit and echo as before");
    let _ = credit.control_header(Kind::Credit, (1, 2), 0);
    assert!(!credit.take_next(&header(2, 9, 8)), "an update is on its way");
    credit.calm_down(8);
    assert!(!credit.take_next(&header(2, 9, 8)), "still");
}

/// However many messages are expected to need no more than a look, the peer's credits end them.
#[test]
fn the_short_way_ends_with_the_credits() {
    let header = |sequence| {
        let kind = Kind::Data;
        Header { kind, session: 1, incarnation: 2, sequence, limit: 8, echo: 3 }.encode()
    };
    let mut credit = Credit::new(Delivery::Reliable, 3, 8);
    credit.calm_down(u32::MAX);
    let taken = (0..5).filter(|sequence| credit.take_next(&header(*sequence))).count();
    assert_eq!((taken, credit.received(), credit.outstanding()), (3, 3, 0));
}
