//! The leader protocol: every reachable state of its pure part, and under loom every interleaving
//! of threads that wait, time out and are made due.

#[cfg(not(loom))]
mod states {
    use std::collections::HashSet;

    use super::super::*;

    /// What can happen to one of three threads.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Enter,
        MakeDue,
        TakeDue,
        Leave,
    }

    /// The threads as they see themselves.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    struct Thread {
        place: Option<Place>,
        due: bool,
        /// Its token was used and it has not looked since.
        woken: bool,
        /// It was the leader when it looked last.
        knows_it_leads: bool,
    }

    type World = ([Thread; 3], Place);

    fn replay(steps: &[(usize, Step)]) -> Option<World> {
        let mut lead = Lead::new();
        let mut threads = [Thread::default(); 3];
        for (who, step) in steps {
            let thread = &mut threads[*who];
            match (step, thread.place) {
                (Step::Enter, None) => {
                    let place = lead.enter(*who);
                    let knows_it_leads = lead.leads(place);
                    *thread =
                        Thread { place: Some(place), due: false, woken: false, knows_it_leads };
                }
                (Step::MakeDue, Some(place)) => {
                    let token = lead.make_due(place);
                    assert_eq!(token, Some(*who), "its own token");
                    (thread.due, thread.woken) = (true, true);
                }
                (Step::TakeDue, Some(place)) => {
                    assert_eq!(lead.take_due(place), thread.due);
                    thread.due = false;
                    // It looked: whatever it was woken for it has seen.
                    (thread.woken, thread.knows_it_leads) = (false, lead.leads(place));
                }
                (Step::Leave, Some(place)) => {
                    *thread = Thread::default();
                    if let Some(successor) = lead.leave(place) {
                        threads[successor].woken = true;
                    }
                }
                _ => return None,
            }
            check(&lead, &threads);
        }
        Some((threads, lead.leader))
    }

    /// The invariants of the file.
    fn check(lead: &Lead<usize>, threads: &[Thread; 3]) {
        let waiting = || threads.iter().filter(|thread| thread.place.is_some());
        let leaders =
            waiting().filter(|thread| thread.place.is_some_and(|p| lead.leads(p))).count();
        assert_eq!(leaders, usize::from(waiting().count() > 0), "exactly one leads, if any wait");
        assert_eq!(lead.has_leader(), leaders == 1);
        for thread in waiting() {
            let leads = thread.place.is_some_and(|place| lead.leads(place));
            assert!(
                !leads || thread.knows_it_leads || thread.woken,
                "a leader that sleeps for ever"
            );
            assert!(!thread.due || thread.woken, "a thread whose time came sleeps for ever");
        }
    }

    /// Breadth first over every state that three threads can reach, each by its shortest way.
    #[test]
    fn in_every_state_of_three_threads_one_leads_and_nobody_is_forgotten() {
        let mut seen: HashSet<World> = HashSet::new();
        let mut ways: Vec<Vec<(usize, Step)>> = vec![Vec::new()];
        while let Some(way) = ways.pop() {
            let Some(world) = replay(&way) else { continue };
            if !seen.insert(world) {
                continue;
            }
            for who in 0..3 {
                for step in [Step::Enter, Step::MakeDue, Step::TakeDue, Step::Leave] {
                    let mut longer = way.clone();
                    longer.push((who, step));
                    ways.push(longer);
                }
            }
        }
        assert!(seen.len() > 100, "{} states", seen.len());
    }
}

#[cfg(loom)]
mod interleavings {
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    use super::super::*;
    use crate::Parker;

    /// What the lock protects: the protocol, and a device with what came for each thread.
    struct Worker {
        lead: Lead<Parker>,
        /// Frames that nobody has turned for yet.
        device: Vec<usize>,
        /// What was delivered to whom.
        inbox: [bool; 3],
        places: [Option<Place>; 3],
    }

    struct Shared {
        worker: Mutex<Worker>,
        /// Stands for the device's event, which ends a leader's sleep.
        event: Condvar,
    }

    impl Worker {
        /// A turn: delivers, and finds out whom it concerns.
        fn turn(&mut self) -> Vec<Parker> {
            let mut wake = Vec::new();
            for to in self.device.drain(..) {
                self.inbox[to] = true;
                if let Some(place) = self.places[to] {
                    let token = self.lead.make_due(place);
                    if !self.lead.leads(place) {
                        wake.extend(token);
                    }
                }
            }
            wake
        }
    }

    /// As `Held::wait` does it.
    fn wait(shared: &Shared, me: usize) {
        let parker = Parker::of_this_thread();
        let mut worker = shared.worker.lock().unwrap();
        if worker.inbox[me] {
            return;
        }
        let place = worker.lead.enter(parker.clone());
        worker.places[me] = Some(place);
        while !worker.lead.take_due(place) {
            if worker.lead.leads(place) {
                let wake = worker.turn();
                if !wake.is_empty() {
                    drop(worker);
                    wake.iter().for_each(Parker::wake);
                    worker = shared.worker.lock().unwrap();
                } else if worker.places[me].is_some() && !worker.inbox[me] {
                    // Nothing came: it sleeps on the device, without the lock.
                    worker = shared.event.wait(worker).unwrap();
                }
            } else {
                drop(worker);
                parker.sleep();
                worker = shared.worker.lock().unwrap();
            }
        }
        worker.places[me] = None;
        assert!(worker.inbox[me]);
        let successor = worker.lead.leave(place);
        drop(worker);
        if let Some(successor) = successor {
            successor.wake();
        }
    }

    /// `waiters` threads and a device that brings each its frame: everybody returns. A lost
    /// wake-up, or waiters without a leader, is a deadlock, which loom reports.
    fn everybody_returns(waiters: usize, preemptions: usize) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        model.check(move || {
            let worker = Worker {
                lead: Lead::new(),
                device: Vec::new(),
                inbox: [false; 3],
                places: [None; 3],
            };
            let shared = Arc::new(Shared { worker: Mutex::new(worker), event: Condvar::new() });
            let threads: Vec<_> = (0..waiters)
                .map(|me| {
                    let shared = shared.clone();
                    thread::spawn(move || wait(&shared, me))
                })
                .collect();
            for to in 0..waiters {
                shared.worker.lock().unwrap().device.push(to);
                shared.event.notify_one();
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }

    #[test]
    fn loom_one_waiter_leads_itself() {
        everybody_returns(1, 4);
    }

    #[test]
    fn loom_two_waiters_pass_leadership_on() {
        everybody_returns(2, 3);
    }

    /// A thread that does not wait turns while the leader sleeps, and finds the leader's frame.
    #[test]
    fn loom_a_caller_that_turns_wakes_the_leader() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(4);
        model.check(|| {
            let worker = Worker {
                lead: Lead::new(),
                device: Vec::new(),
                inbox: [false; 3],
                places: [None; 3],
            };
            let shared = Arc::new(Shared { worker: Mutex::new(worker), event: Condvar::new() });
            let waiting = {
                let shared = shared.clone();
                thread::spawn(move || wait(&shared, 0))
            };
            {
                // As `Seat::turn` and `Held::release` do it: the ring comes after the lock.
                let mut worker = shared.worker.lock().unwrap();
                worker.device.push(0);
                let wake = worker.turn();
                drop(worker);
                wake.iter().for_each(Parker::wake);
                shared.event.notify_one();
            }
            waiting.join().unwrap();
        });
    }
}
