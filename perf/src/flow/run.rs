//! The loop that steps the flows of one end until its run is over.

use std::io;

use super::{Flow, LOST_AFTER_NS, Step};
use crate::recorder::Recorder;
use crate::transport::{Manner, Pass, Ready, Role, Token, Transport};

/// A spinning loop looks at the clock once in so many turns.
const LOOK_TURNS: u32 = 64;
/// How often flows are told the time that keep it: a loss is noticed so much late at most.
const TIME_NS: u64 = LOST_AFTER_NS / 8;

/// CPU time of this end over the counted part of a run, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuTime(pub u64);

/// Steps all flows until the recorder says that the run is over. `watch` is called now and then.
///
/// # Errors
/// The first flow's failure.
pub fn run<T: Transport>(
    transport: &mut T,
    flows: &mut [Flow<T>],
    recorder: &mut Recorder,
    watch: &mut dyn FnMut(&Recorder),
) -> io::Result<CpuTime> {
    let mut run = Run::new(transport, flows, recorder);
    loop {
        if let Some(cpu) = run.turn(transport, recorder, watch)? {
            return Ok(cpu);
        }
    }
}

/// A run of one end, turn by turn. Its sockets must have the role that [`Role::of_data`] gives for
/// the number of its flows, and the flow's index as token.
#[derive(Debug)]
pub struct Run<'a, T: Transport> {
    stepper: Stepper<'a, T>,
    tokens: Vec<Token>,
    pass: Pass,
    turns: u32,
    spins: bool,
    /// When flows that keep time are told it again; never if there are none.
    time_due_ns: u64,
    counting: bool,
    cpu_start_ns: u64,
}

impl<'a, T: Transport> Run<'a, T> {
    /// A run of these flows, each of which is stepped in the first turn.
    #[must_use]
    pub fn new(transport: &T, flows: &'a mut [Flow<T>], recorder: &Recorder) -> Self {
        let manner = transport.manner();
        let tokens: Vec<Token> = (0..flows.len()).collect();
        let time_due_ns = if flows.iter().any(Flow::keeps_time) { 0 } else { u64::MAX };
        let stepper = Stepper {
            every: Role::of_data(manner, flows.len()) == Role::Direct,
            list: Vec::with_capacity(tokens.len()),
            over: vec![false; flows.len()],
            done: 0,
            flows,
        };
        Self {
            stepper,
            tokens,
            pass: Pass::Busy,
            turns: 0,
            spins: manner == Manner::Spins,
            time_due_ns,
            counting: recorder.is_counting(),
            cpu_start_ns: transport.cpu_ns(),
        }
    }

    /// One turn; the time of the counted part once the run is over.
    ///
    /// # Errors
    /// The first flow's failure.
    #[inline]
    pub fn turn(
        &mut self,
        transport: &mut T,
        recorder: &mut Recorder,
        watch: &mut dyn FnMut(&Recorder),
    ) -> io::Result<Option<CpuTime>> {
        let stepper = &mut self.stepper;
        self.pass =
            transport.turn_with(self.pass, &mut self.tokens, |transport, known, tokens| {
                stepper.step(transport, recorder, known, tokens)
            })?;
        if self.stepper.done >= self.stepper.flows.len() {
            recorder.end(transport.now_ns());
        }
        self.turns = self.turns.wrapping_add(1);
        if !self.spins || self.turns.is_multiple_of(LOOK_TURNS) {
            self.look(transport.now_ns(), recorder);
            watch(recorder);
        }
        if !self.counting && recorder.is_counting() {
            self.counting = true;
            self.cpu_start_ns = transport.cpu_ns();
        }
        if !recorder.is_over() {
            return Ok(None);
        }
        Ok(Some(CpuTime(transport.cpu_ns().saturating_sub(self.cpu_start_ns))))
    }

    fn look(&mut self, now_ns: u64, recorder: &mut Recorder) {
        recorder.on_time(now_ns);
        if now_ns < self.time_due_ns {
            return;
        }
        self.time_due_ns = now_ns.saturating_add(TIME_NS);
        for (token, flow) in self.stepper.flows.iter_mut().enumerate() {
            if flow.on_time(now_ns, recorder) {
                self.tokens.push(token);
                self.pass = Pass::Busy;
            }
        }
    }
}

/// Steps those flows that may have something to do.
#[derive(Debug)]
struct Stepper<'a, T: Transport> {
    flows: &'a mut [Flow<T>],
    /// So few flows that each is stepped in every pass.
    every: bool,
    list: Vec<Token>,
    /// Which flows are done, and how many.
    over: Vec<bool>,
    done: usize,
}

impl<T: Transport> Stepper<'_, T> {
    /// One pass: all flows, or those listed. Those that moved are left in the list.
    #[inline]
    fn step(
        &mut self,
        transport: &mut T,
        recorder: &mut Recorder,
        known: Ready,
        tokens: &mut Vec<Token>,
    ) -> io::Result<Pass> {
        let mut pass = Pass::Idle;
        if self.every || known == Ready::Any {
            tokens.clear();
            for index in 0..self.flows.len() {
                self.step_one(index, (transport, &mut *recorder), &mut pass)?;
            }
            return Ok(pass);
        }
        tokens.sort_unstable();
        tokens.dedup();
        std::mem::swap(&mut self.list, tokens);
        tokens.clear();
        for at in 0..self.list.len() {
            let Some(&index) = self.list.get(at) else { break };
            if self.step_one(index, (transport, &mut *recorder), &mut pass)? {
                tokens.push(index);
            }
        }
        Ok(pass)
    }

    /// Steps one flow; returns whether it is to be stepped again.
    #[inline]
    fn step_one(
        &mut self,
        index: usize,
        (transport, recorder): (&mut T, &mut Recorder),
        pass: &mut Pass,
    ) -> io::Result<bool> {
        let (Some(flow), Some(over)) = (self.flows.get_mut(index), self.over.get_mut(index)) else {
            return Ok(false);
        };
        if *over {
            return Ok(false);
        }
        match flow.step(transport, recorder)? {
            Step::Moved | Step::Scheduled => {
                *pass = Pass::Busy;
                Ok(true)
            }
            Step::Waiting => Ok(false),
            Step::Done => {
                *over = true;
                self.done += 1;
                Ok(false)
            }
        }
    }
}
