//! Blocks of made-up contenders: interleaving, medians, dropped repetitions, failures.

use std::cell::RefCell;
use std::rc::Rc;

use super::bare::BareRival;
use super::rivals::{rtt_row, stream_row};
use super::*;
use crate::report::Place;

struct Fake {
    stack: &'static str,
    values: Vec<Result<u64, &'static str>>,
    log: Rc<RefCell<Vec<&'static str>>>,
}

impl Contender for Fake {
    fn name(&self) -> String {
        self.stack.into()
    }

    fn measure(&mut self, _plan: &Plan) -> Result<Measured, String> {
        self.log.borrow_mut().push(self.stack);
        let ns = self.values.remove(0)?;
        let place =
            Place { stack: self.stack.into(), device: "soft".into(), mode: Some("copy".into()) };
        let mut latency = Latency::new();
        latency.record(ns);
        Ok(rtt_row("TCP_RR", place, latency))
    }
}

fn plan(repetitions: usize, spare: usize) -> Plan {
    Plan { repetitions, spare, ..Plan::new(Cores::default()) }
}

fn block(
    plan: &Plan,
    contenders: &[(&'static str, &[Result<u64, &'static str>])],
) -> (Block, Vec<&'static str>) {
    judged(plan, contenders, &mut Look::default)
}

fn judged(
    plan: &Plan,
    contenders: &[(&'static str, &[Result<u64, &'static str>])],
    referee: Referee<'_>,
) -> (Block, Vec<&'static str>) {
    let log = Rc::new(RefCell::new(Vec::new()));
    let mut all: Vec<Box<dyn Contender>> = Vec::new();
    for (stack, values) in contenders {
        all.push(Box::new(Fake { stack, values: values.to_vec(), log: Rc::clone(&log) }));
    }
    let block = run(plan, &mut all, referee, &mut |_, _, _| ());
    let order = log.borrow().clone();
    (block, order)
}

#[test]
fn contenders_take_turns_and_medians_count() {
    let (block, order) = block(
        &plan(3, 0),
        &[("line", &[Ok(250), Ok(240), Ok(260)]), ("link", &[Ok(900), Ok(300), Ok(310)])],
    );
    assert_eq!(order, ["line", "link", "line", "link", "line", "link"]);
    let medians: Vec<_> = block.rows.iter().map(|row| row.p50_ns).collect();
    assert_eq!(medians, [Some(250.0), Some(310.0)]);
    assert_eq!(block.latencies[1].1.summary().unwrap().count, 3);
    let ratios = ratios(&block.rounds);
    assert_eq!(ratios[0].name, "tcp_rr link/line");
    // Of 3.6, 1.25 and 1.1923: not of the medians, 310 and 250.
    assert!((ratios[0].value - 1.25).abs() < 1e-9);
}

/// Finds fault with these of the questions that it is asked.
fn referee(wrong: &'static [usize]) -> impl FnMut() -> Look {
    let mut asked = 0;
    move || {
        asked += 1;
        let flaw = wrong.contains(&asked).then(|| "one physical core".to_owned());
        Look { flaw, line_ns: None }
    }
}

/// Sees a cache line take so long, one time after the other.
fn timekeeper(all: &'static [f64]) -> impl FnMut() -> Look {
    let mut all = all.iter();
    move || Look { flaw: None, line_ns: all.next().copied() }
}

#[test]
fn a_measurement_during_which_a_cpu_was_moved_is_dropped_and_replaced() {
    let line: &[_] = &[Ok(100), Ok(240), Ok(260)];
    let times = &[100.0, 190.0, 190.0, 200.0, 200.0, 210.0];
    let (block, _) = judged(&plan(2, 1), &[("line", line)], &mut timekeeper(times));
    assert_eq!((block.repetitions, block.rows[0].p50_ns), (2, Some(250.0)));
    let [note] = &block.notes[..] else { panic!("{:?}", block.notes) };
    let wanted = "1 of 3 measurements dropped: a cache line took 0.10 us there and back before it";
    assert!(note.starts_with(wanted), "{note}");
}

#[test]
fn a_round_in_which_one_was_moved_counts_for_the_others() {
    let (line, link): (&[_], &[_]) = (&[Ok(900), Ok(200), Ok(220)], &[Ok(300), Ok(310), Ok(320)]);
    // Asked once more at the beginning of each round.
    let times = &[400.0, 100.0, 100.0, 100.0, 110.0, 110.0, 100.0, 100.0, 100.0];
    let all = [("line", line), ("link", link)];
    let (block, order) = judged(&plan(2, 3), &all, &mut timekeeper(times));
    assert_eq!(order.len(), 6, "three rounds: {order:?}");
    let names: Vec<_> = block.rows.iter().map(|row| row.stack.as_str()).collect();
    assert_eq!(names, ["line", "link"], "in the order of the contenders");
    let medians: Vec<_> = block.rows.iter().map(|row| row.p50_ns).collect();
    assert_eq!((block.repetitions, medians), (2, vec![Some(210.0), Some(310.0)]));
}

#[test]
fn measurements_at_the_place_where_most_were_made_count() {
    let line: &[_] = &[Ok(300), Ok(100), Ok(310), Ok(120), Ok(140)];
    let times = &[190.0, 190.0, 100.0, 105.0, 200.0, 190.0, 99.0, 100.0, 100.0, 130.0];
    let (block, _) = judged(&plan(3, 2), &[("line", line)], &mut timekeeper(times));
    assert_eq!((block.repetitions, block.rows[0].p50_ns), (3, Some(120.0)));
    let [note] = &block.notes[..] else { panic!("{:?}", block.notes) };
    assert!(note.starts_with("2 of 5 measurements dropped, the first because"), "{note}");
    assert!(note.contains("took 0.19 us there and back, and 0.10 us"), "{note}");
}

#[test]
fn as_many_at_two_places_are_those_of_the_first() {
    let line: &[_] = &[Ok(300), Ok(100)];
    let (block, _) =
        judged(&plan(2, 0), &[("line", line)], &mut timekeeper(&[190.0, 190.0, 90.0, 90.0]));
    assert_eq!((block.repetitions, block.rows[0].p50_ns), (1, Some(300.0)));
}

#[test]
fn a_contender_without_a_measurement_at_that_place_is_left_out_with_the_reason() {
    let (line, link): (&[_], &[_]) = (&[Ok(200), Ok(220)], &[Ok(300), Ok(310)]);
    let times = &[100.0, 100.0, 400.0, 100.0, 100.0, 400.0];
    let all = [("line", line), ("link", link)];
    let (block, _) = judged(&plan(2, 0), &all, &mut timekeeper(times));
    assert_eq!((block.repetitions, block.rows.len()), (0, 1));
    assert!(block.notes[1].starts_with("link is left out: none"), "{:?}", block.notes);
}

#[test]
fn a_measurement_that_began_or_ended_on_one_core_is_dropped_and_replaced() {
    let line: &[_] = &[Ok(100), Ok(110), Ok(240), Ok(260)];
    let (block, _) = judged(&plan(2, 2), &[("line", line)], &mut referee(&[1, 4]));
    assert_eq!(block.repetitions, 2);
    assert_eq!(block.rows[0].p50_ns, Some(250.0));
    assert_eq!(block.notes, ["2 of 4 measurements dropped, the first because one physical core"]);
}

#[test]
fn if_all_measurements_are_on_one_core_the_figures_say_so() {
    let line: &[_] = &[Ok(100), Ok(110), Ok(120)];
    let (block, _) = judged(&plan(2, 1), &[("line", line)], &mut referee(&[1, 3, 5]));
    assert_eq!((block.repetitions, block.rows[0].p50_ns), (0, Some(110.0)));
    assert!(block.notes.iter().any(|note| note.contains("every measurement was flagged")));
}

#[test]
fn a_contender_that_fails_is_left_out_with_its_reason() {
    let (block, _) =
        block(&plan(2, 0), &[("line", &[Ok(250), Ok(250)]), ("link", &[Err("no shared memory")])]);
    assert_eq!(block.rows.len(), 1);
    assert_eq!(block.notes, ["link is left out: no shared memory"]);
}

#[test]
fn the_document_has_the_promised_shape() {
    let place = Place { stack: "link".into(), device: "soft".into(), mode: Some("copy".into()) };
    let row = stream_row(place, 65_536, (1_000_000_000, 100_000_000)).row;
    let document = Document {
        options: serde_json::Map::new(),
        rows: vec![row],
        ratios: vec![Ratio { name: "a to b".into(), value: 2.0 }],
        notes: Vec::new(),
        workers: None,
    };
    let json: serde_json::Value = serde_json::from_str(&document.json()).unwrap();
    assert_eq!(json["rows"][0]["gbit_per_s"], 80.0);
    assert_eq!(json["rows"][0]["message_bytes"], 65_536);
    assert!(json.get("workers").is_none());
    assert!(json["rows"][0]["p50_ns"].is_null());
    assert_eq!(json["ratios"][0]["value"], 2.0);
    let text = document.text();
    assert!(text.contains("80.0") && text.contains("not a NIC"), "{text}");
}

/// A stream's row of so many Gbit/s, in messages of so many bytes.
fn stream_of(stack: &str, mode: &str, message: u64, gbit: u64) -> Row {
    let place = Place { stack: stack.into(), device: "soft".into(), mode: Some(mode.into()) };
    stream_row(place, message, (gbit * 1_000_000, 8_000_000)).row
}

#[test]
fn what_tcp_has_to_do_is_compared_in_all_three_modes() {
    let names: Vec<_> = soft_block(Extras::default()).iter().map(|one| one.name()).collect();
    let mut rows = Vec::new();
    for mode in ["copy", "zero-copy", "zero-copy/64k"] {
        assert!(names.contains(&format!("bare, stream, {mode}")), "{names:?}");
        rows.push(stream_of("link", mode, 65_160, 100));
        rows.push(stream_of("bare", mode, 65_160, 90));
        rows.push(stream_of("roceway", mode, 65_536, 81));
    }
    let ratios = ratios(&[rows]);
    let value = |name: &str| ratios.iter().find(|ratio| ratio.name == name).unwrap().value;
    for mode in ["", ", zero-copy", ", zero-copy, 64 KiB buffers"] {
        let messages = if mode.is_empty() { ", 64 KiB messages" } else { mode };
        assert!((value(&format!("tcp_stream bare/link{mode}")) - 0.9).abs() < 1e-9);
        assert!((value(&format!("tcp_stream roceway/bare{messages}")) - 0.9).abs() < 1e-9);
    }
}

#[test]
fn the_bare_rows_move_bytes_and_count_their_copies() {
    // More than one, since on a busy machine an end may have no core for all of a short one.
    let mut plan = plan(8, 0);
    (plan.warmup, plan.length) = (Duration::from_millis(5), Duration::from_millis(50));
    let mut all: Vec<Box<dyn Contender>> = Vec::new();
    all.extend(BareRival::ALL.map(|one| Box::new(one) as Box<dyn Contender>));
    let block = run(&plan, &mut all, &mut Look::default, &mut |_, _, _| ());
    assert_eq!(block.notes, [""; 0]);
    let modes: Vec<_> = block.rows.iter().map(|row| row.mode.as_deref().unwrap()).collect();
    assert_eq!(modes, ["copy", "zero-copy", "zero-copy/64k"]);
    for (row, copies) in block.rows.iter().zip([2.0, 0.0, 0.0]) {
        assert_eq!(
            (&*row.stack, &*row.test, row.message_bytes),
            ("bare", "TCP_STREAM", Some(65_160))
        );
        assert!(row.gbit_per_s.unwrap() > 0.0);
        assert!((row.copies_per_byte.unwrap() - copies).abs() < 1e-9, "{row:?}");
    }
}
