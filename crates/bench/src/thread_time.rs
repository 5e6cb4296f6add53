//! How long threads of this process were on a core.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// The time of every thread by its name, on Linux. `None` elsewhere. Threads of one name are counted together.
pub(crate) fn all() -> Option<BTreeMap<String, Duration>> {
    let mut found = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").ok()?.flatten() {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).ok();
        let time = read("schedstat").and_then(|text| text.split(' ').next()?.parse().ok());
        // A thread may end between the two.
        if let Some((name, nanoseconds)) = read("comm").zip(time) {
            let name = name.trim_end().to_owned();
            *found.entry(name).or_insert(Duration::ZERO) += Duration::from_nanos(nanoseconds);
        }
    }
    Some(found)
}

/// The time of the threads with this name. `None` when there are none, and where the system does not say.
pub(crate) fn of(name: &str) -> Option<Duration> {
    all()?.remove(name)
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
