//! How long a thread of this process was on a core.

use std::fs;
use std::time::Duration;

/// The time of the thread with this name, on Linux. `None` elsewhere, and when there is no such thread. With several it is their sum.
pub(super) fn of(name: &str) -> Option<Duration> {
    let mut found = None;
    for task in fs::read_dir("/proc/self/task").ok()?.flatten() {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).ok();
        if read("comm").is_some_and(|comm| comm.trim_end() == name)
            && let Some(nanoseconds) = read("schedstat").and_then(|text| text.split(' ').next()?.parse().ok())
        {
            *found.get_or_insert(Duration::ZERO) += Duration::from_nanos(nanoseconds);
        }
    }
    found
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_thread_that_works_has_time_and_one_that_is_not_there_has_none() {
        let worked = std::thread::Builder::new().name("worker-of-test".to_owned()).spawn(|| {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(20) {
                std::hint::black_box(0);
            }
            of("worker-of-test")
        });
        let worked = worked.unwrap().join().unwrap().unwrap();
        assert!(worked > Duration::from_millis(1), "{worked:?}");
        assert_eq!(of("nobody"), None);
    }
}
