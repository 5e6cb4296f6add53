//! Settings and tenants' files.

use std::path::Path;
use tessera_server::catalog::TenantFile;
use tessera_server::settings::Sources;

pub(super) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(terms) = TenantFile::parse(text) {
        // A length of time that was allowed is one that can be computed.
        let _ = terms.slo();
    }
    let mut sources = Sources::new();
    if sources.file(Path::new("tessera.toml"), text).is_ok() {
        let _ = sources.resolve();
    }
}
