//! Figures off a page of metrics.

/// The value of a series without labels.
pub(crate) fn sample(page: &str, name: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.split(' ').next() == Some(name))?;
    line.split(' ').nth(1)?.parse().ok()
}
