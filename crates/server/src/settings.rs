//! What can be set: one table, and the order in which its sources are heard.
//!
//! ```text
//! default  <  tessera.toml  <  TESSERA_HTTP_PORT=…  <  --http-port …        a later source wins
//! ```
//!
//! A row of [`TABLE`] is a setting's field, key, reader, default and help. The file, the environment, the flags of
//! `tessera serve` and its `--help` are all made from these rows, so none of them can know a key that another does
//! not. Every value passes the same reader, whatever its source, defaults included.

mod read;
mod source;
mod table;

pub use read::{DeviceWord, LogFormat};
pub(crate) use source::in_one_line;
pub use source::{SettingsError, Sources};
pub use table::{Setting, Settings, TABLE};
