//! The calls into the processor and the system: time stamp counter, CPUID, clock, eventfd, poll.
//! All unsafe code of the crate is here, each call wrapped so that no use of it can break memory.

use std::io;
use std::os::fd::RawFd;
#[cfg(not(loom))]
use std::os::fd::{FromRawFd, OwnedFd};

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec that lives across the call; the kernel writes only to it.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    assert_eq!(result, 0, "clock_gettime(CLOCK_MONOTONIC) cannot fail on Linux");
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// The time stamp counter. Not serialising: it may be read a few instructions early or late.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn tsc() -> u64 {
    // SAFETY: every x86-64 processor has the instruction; where the system forbids it (PR_SET_TSC)
    // the process gets a signal, which is a defined end.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Never called: without an x86-64 processor [`invariant_tsc`] says no.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(crate) fn tsc() -> u64 {
    monotonic_ns()
}

/// Whether the processor promises a counter of constant rate that does not stop in sleep states
/// (CPUID 8000_0007h, EDX bit 8).
#[cfg(target_arch = "x86_64")]
pub(crate) fn invariant_tsc() -> bool {
    use core::arch::x86_64::__cpuid;
    const POWER_MANAGEMENT: u32 = 0x8000_0007;
    let highest = __cpuid(0x8000_0000).eax;
    highest >= POWER_MANAGEMENT && __cpuid(POWER_MANAGEMENT).edx & (1 << 8) != 0
}

/// Other processors: the system's clock is used.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn invariant_tsc() -> bool {
    false
}

/// A counter of the processor's cycles: of the calling thread, and of those that it starts from now
/// on and theirs.
#[cfg(not(loom))]
pub(crate) fn cycle_counter() -> io::Result<OwnedFd> {
    // `perf_event_attr` of its first version, 64 bytes: type PERF_TYPE_HARDWARE (0) and the size;
    // config PERF_COUNT_HW_CPU_CYCLES (0); the sixth word is flags, of which bit 1 is `inherit`.
    const SIZE: u64 = 64;
    const INHERIT: u64 = 1 << 1;
    let attributes: [u64; 8] = [SIZE << 32, 0, 0, 0, 0, INHERIT, 0, 0];
    let (this_thread, any_cpu, no_group, close_on_exec) = (0, -1, -1, 1 << 3);
    // SAFETY: the kernel reads the 64 bytes that the attributes say they have, and nothing else.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attributes.as_ptr(),
            this_thread,
            any_cpu,
            no_group,
            close_on_exec,
        )
    };
    let Ok(fd) = RawFd::try_from(fd) else { return Err(io::Error::last_os_error()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was opened just now and nobody else knows it, so this is its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A new non-blocking eventfd.
#[cfg(not(loom))]
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointer.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was opened just now and nobody else knows it, so this is its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits until a descriptor is ready or `timeout_ns` have passed; for ever if `None`. Returns how
/// many are ready. A descriptor below 0 is skipped, a closed one is reported ready.
pub(crate) fn poll(fds: &mut [libc::pollfd], timeout_ns: Option<u64>) -> io::Result<usize> {
    let timeout = timeout_ns.map(timespec);
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let count = libc::nfds_t::try_from(fds.len()).unwrap_or(libc::nfds_t::MAX);
    // SAFETY: `fds` and `count` describe one slice that is borrowed mutably across the call;
    // `timeout` is null or points to a timespec that lives until the end of this function; a null
    // signal mask leaves the thread's own.
    let ready = unsafe { libc::ppoll(fds.as_mut_ptr(), count, timeout, std::ptr::null()) };
    usize::try_from(ready).map_err(|_| io::Error::last_os_error())
}

/// A pollfd that waits for input.
pub(crate) fn wait_for_input(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// Lets this thread's sleeps end within a nanosecond of their time instead of the usual 50 us.
pub(crate) fn precise_timers() -> io::Result<()> {
    let slack_ns: libc::c_ulong = 1;
    // SAFETY: PR_SET_TIMERSLACK takes a number and touches no memory of ours.
    let result = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, slack_ns) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn timespec(ns: u64) -> libc::timespec {
    let seconds = libc::time_t::try_from(ns / 1_000_000_000).unwrap_or(libc::time_t::MAX);
    let rest = libc::c_long::try_from(ns % 1_000_000_000).unwrap_or(0);
    libc::timespec { tv_sec: seconds, tv_nsec: rest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poll_waits_nanoseconds_and_ends() {
        let before = monotonic_ns();
        assert_eq!(poll(&mut [wait_for_input(-1)], Some(100_000)).unwrap(), 0);
        assert!(monotonic_ns() - before >= 100_000);
    }

    #[test]
    fn a_signal_ends_a_wait_and_is_reported() {
        use std::os::unix::thread::JoinHandleExt;
        extern "C" fn nothing(_: libc::c_int) {}
        let handler = nothing as extern "C" fn(libc::c_int);
        // SAFETY: the handler touches nothing, so it may run at any point; nothing else in this
        // test program uses SIGUSR2.
        unsafe { libc::signal(libc::SIGUSR2, handler as libc::sighandler_t) };
        let waiter = std::thread::spawn(|| {
            poll(&mut [wait_for_input(-1)], Some(60_000_000_000)).map_err(|error| error.kind())
        });
        while !waiter.is_finished() {
            // SAFETY: the thread is not joined yet, so its handle names it even once it has ended.
            unsafe { libc::pthread_kill(waiter.as_pthread_t(), libc::SIGUSR2) };
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(waiter.join().unwrap(), Err(io::ErrorKind::Interrupted));
    }

    #[test]
    fn timespec_takes_every_number() {
        for (ns, seconds, rest) in [(0, 0, 0), (1_999_999_999, 1, 999_999_999)] {
            let time = timespec(ns);
            assert_eq!((time.tv_sec, time.tv_nsec), (seconds, rest));
        }
        assert!(timespec(u64::MAX).tv_sec > 0);
    }

    #[test]
    fn precise_timers_are_granted() {
        std::thread::spawn(|| precise_timers().unwrap()).join().unwrap();
    }
}
