//! A panic while a launch is carried through is an error of its card: everybody hears of it, as of any other, and nobody waits for a thread that has ended.

use crate::cuda::fence::CudaError;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What `work` comes to; an error if it panics. An error is final, so nobody uses what was left half done.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, CudaError>) -> Result<T, CudaError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(CudaError::new("carry a launch through", words(&*panic))))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref().copied()).unwrap_or("a thread panicked").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_words_and_an_error_stays_as_it_is() {
        let told = |work: fn() -> Result<(), CudaError>| guarded(work).map_err(|error| error.to_string());
        assert_eq!(told(|| Ok(())), Ok(()));
        let said = |why: &str| Err(format!("CUDA could not carry a launch through: {why}"));
        assert_eq!(told(|| panic!("berth {} is gone", 3)), said("berth 3 is gone"));
        assert_eq!(told(|| panic!("no berth")), said("no berth"));
        assert_eq!(told(|| std::panic::panic_any(1)), said("a thread panicked"));
        let error = told(|| Err(CudaError::new("finish a launch", "it is gone".to_owned())));
        assert_eq!(error, Err("CUDA could not finish a launch: it is gone".to_owned()));
    }
}
