//! Settings, registry, engine loop, HTTP and metrics.
