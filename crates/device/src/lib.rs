//! Loads and runs programs: the device trait, the CPU device and the conformance suite.
