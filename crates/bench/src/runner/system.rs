//! CPU time and memory of a process, from `proc(5)`.

use std::fs;
use std::time::Duration;

/// Clock ticks per second in `/proc`, on every architecture that the worker is built for.
const TICKS_PER_S: u64 = 100;

/// Returns the CPU time of a process.
///
/// That of living threads is exact; that of ended ones, which a JVM has, is known to a clock tick.
pub(crate) fn cpu_time(pid: u32) -> Option<Duration> {
    Some(living_threads(pid)?.max(all_threads(pid)?))
}

/// Returns the CPU time of threads that have not ended (`/proc/PID/task/*/schedstat`).
fn living_threads(pid: u32) -> Option<Duration> {
    let mut total = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        // The thread may have ended after it was listed.
        let Ok(text) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else { continue };
        total += Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?);
    }
    Some(total)
}

/// Returns the CPU time of all threads, rounded down to a clock tick (`/proc/PID/stat`).
fn all_threads(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name comes before, and may contain anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split_whitespace().skip(11);
    let ticks = times.next()?.parse::<u64>().ok()? + times.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1_000 / TICKS_PER_S))
}

/// Returns the current and the peak memory in kB (`VmRSS`, `VmHWM`).
pub(crate) fn memory_kb(pid: u32) -> Option<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    };
    Some((field("VmRSS:")?, field("VmHWM:")?))
}

/// Returns busy and idle time of all cores, in clock ticks.
pub(super) fn machine_ticks() -> Option<(u64, u64)> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<u64> =
        stat.lines().next()?.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    let idle = fields.get(3)? + fields.get(4)?;
    // Guest time is already included in the first two fields.
    Some((fields.iter().take(8).sum::<u64>() - idle, idle))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_running_process_uses_time_and_memory_and_an_ended_one_has_no_figures() {
        let mut child = Busy(
            Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("sh starts"),
        );
        let pid = child.0.id();
        let before = cpu_time(pid).expect("the process is running");
        // The child is still starting the shell, or the shell is running.
        let limit = Instant::now() + Duration::from_secs(60);
        let works = || {
            let is_shell = memory_kb(pid).is_some_and(|(now, peak)| now > 100 && peak >= now);
            is_shell && cpu_time(pid).is_some_and(|used| used > before)
        };
        while !works() {
            assert!(Instant::now() < limit, "{:?} {:?}", cpu_time(pid), memory_kb(pid));
            std::thread::yield_now();
        }
        child.end();
        assert!(cpu_time(pid).is_none() && memory_kb(pid).is_none());
        let (busy, _) = machine_ticks().expect("/proc/stat is readable");
        assert!(busy > 0);
    }

    #[test]
    fn the_time_of_an_ended_thread_counts() {
        let pid = std::process::id();
        let before = cpu_time(pid).expect("this process is running");
        let busy = std::thread::spawn(|| {
            let used_ns = || -> u64 {
                let own = fs::read_to_string("/proc/thread-self/schedstat");
                let text = own.expect("this thread is running");
                text.split(' ').next().expect("a number").parse().expect("a number")
            };
            while used_ns() < 100_000_000 {}
        });
        busy.join().expect("the thread does not panic");
        let used = cpu_time(pid).expect("this process is running").saturating_sub(before);
        assert!(used >= Duration::from_millis(70), "{used:?}");
    }

    struct Busy(Child);

    impl Busy {
        fn end(&mut self) {
            self.0.kill().expect("the child can be killed");
            self.0.wait().expect("the child ends");
        }
    }

    impl Drop for Busy {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}
