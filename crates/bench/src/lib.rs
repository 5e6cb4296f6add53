//! The model zoo, workloads, load generator and the benches.
