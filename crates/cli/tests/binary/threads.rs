//! A system that gives no more threads.

use std::process::Command;

#[test]
fn who_may_have_no_thread_is_told_so_and_what_to_raise() {
    let repository = tempfile::tempdir().unwrap();
    let folder = repository.path().to_str().unwrap();
    for command in [&["serve", "--model-repository", folder][..], &["demo", "--seconds", "1"]] {
        // No address space has room for such a stack, so the system refuses every thread, as it does where a limit is reached.
        let ended = Command::new(env!("CARGO_BIN_EXE_tessera"))
            .args(command)
            .env("RUST_MIN_STACK", (1_u64 << 60).to_string())
            .output()
            .unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(2), "{told}");
        assert!(told.contains("a thread cannot be started") && told.contains("ulimit -u"), "{told}");
        assert!(!told.contains("panicked"), "{told}");
    }
}
