//! Real architectures as ordinary ONNX with seeded weights: what benches run, and what `tessera zoo` writes.
//!
//! ```text
//!   name ─find─▶ Architecture ─model(sizes)─▶ Model ─ bytes(seed)           one tenant, in memory
//!                                                  └ write_tenants(folder)  many, as a repository that can be served
//! ```
//! The graphs are spelled as torchvision's, timm's and transformers' exports are, with normalisations left in, so planning
//! them is planning what users bring. Every tenant of an architecture has weights of its own and all are of one class.
//! [`tiny`] has small models of the same kinds for the demo.

mod bert;
mod classic;
mod densenet;
mod efficientnet;
mod mobilenet;
mod network;
mod recurrent;
mod resnet;
mod scale;
mod senet;
mod table;
mod tabular;
pub mod tiny;
mod vit;
mod write;

pub use table::ARCHITECTURES;
pub use write::{WriteError, write_tenants};

use crate::onnx_writer::OnnxWriter;
use network::Network;

/// A kind of network at its published size.
#[derive(Clone, Copy, Debug)]
pub struct Architecture {
    /// Its name on the command line.
    pub name: &'static str,
    /// One line on what it is.
    pub about: &'static str,
    /// Learnt numbers at width 1 and the usual input, as published; running statistics are not among them.
    pub parameters: u64,
    /// What a request brings.
    pub takes: Takes,
    build: fn(&mut Network, &Size),
}

/// What a request brings, and so which size of it can be chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Takes {
    /// An image of three channels.
    Image {
        /// The usual side.
        side: usize,
        /// The least side: a smaller image has no pixel left for the last layer.
        least: usize,
        /// Sides are multiples of this.
        multiple: usize,
    },
    /// A sequence: token ids below `ids`, or vectors.
    Sequence {
        /// The usual length.
        length: usize,
        /// The greatest length, where there is one.
        most: Option<usize>,
    },
    /// Nothing whose size could be chosen.
    Fixed,
}

/// What to change about an architecture; the default changes nothing.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sizes {
    /// Factor of every layer's width, rounded to multiples of 8.
    pub width: f32,
    /// Side of the image.
    pub image_size: Option<usize>,
    /// Length of the sequence.
    pub tokens: Option<usize>,
}

impl Sizes {
    /// Of these, those that can be chosen of what a request brings: an image has no tokens.
    pub fn taken_by(self, takes: Takes) -> Sizes {
        let Sizes { width, image_size, tokens } = self;
        match takes {
            Takes::Image { .. } => Sizes { width, image_size, tokens: None },
            Takes::Sequence { .. } => Sizes { width, image_size: None, tokens },
            Takes::Fixed => Sizes { width, image_size: None, tokens: None },
        }
    }
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes { width: 1.0, image_size: None, tokens: None }
    }
}

/// Why there is no such model.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum ZooError {
    /// No architecture of that name.
    #[error("`{name}` is not in the zoo; choose one of {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A size that the architecture does not have.
    #[error("{name} takes no {what}; it takes {takes}")]
    NoSuchSize {
        /// The architecture.
        name: &'static str,
        /// The option.
        what: &'static str,
        /// What it does take.
        takes: &'static str,
    },
    /// A size out of bounds.
    #[error("{what} {given} does not fit {name}: {allowed}")]
    BadSize {
        /// The architecture.
        name: &'static str,
        /// The option.
        what: &'static str,
        /// What was asked for.
        given: String,
        /// What fits.
        allowed: String,
    },
    /// More than one file holds.
    #[error(
        "{name} at width {width} has {bytes} bytes of weights, more than the 2 GiB of an ONNX file; choose a smaller width"
    )]
    TooLarge {
        /// The architecture.
        name: &'static str,
        /// Its width.
        width: f32,
        /// Its file's length.
        bytes: u64,
    },
}

/// An architecture at chosen sizes: one class.
#[derive(Clone, Debug)]
pub struct Model {
    /// Which.
    pub architecture: &'static Architecture,
    onnx: OnnxWriter,
    /// Ids that requests bring are below this, input by input; `None` for those of floats.
    ids_below: Vec<Option<i64>>,
}

/// Sizes that are decided.
#[derive(Clone, Copy, Debug)]
struct Size {
    width: f32,
    /// The image's side or the sequence's length.
    length: usize,
}

/// The architecture of a name. `resnet50` and `ResNet_50` are `resnet-50`.
pub fn find(name: &str) -> Result<&'static Architecture, ZooError> {
    let plain = |name: &str| name.to_lowercase().replace(['-', '_', '/'], "");
    let wanted = plain(name);
    let found = ARCHITECTURES.iter().find(|architecture| plain(architecture.name) == wanted);
    found.ok_or_else(|| ZooError::Unknown {
        name: name.to_owned(),
        known: ARCHITECTURES.iter().map(|architecture| architecture.name).collect::<Vec<_>>().join(", "),
    })
}

impl Architecture {
    /// The architecture at these sizes. Costs no memory for weights.
    pub fn model(&'static self, sizes: &Sizes) -> Result<Model, ZooError> {
        let size = Size { width: self.width(sizes.width)?, length: self.length(sizes)? };
        let mut net = Network::new(self.name);
        (self.build)(&mut net, &size);
        let Network { onnx, ids_below } = net;
        // Protobuf counts a message's bytes in 31 bits.
        let bytes = onnx.file_bytes();
        if bytes > i32::MAX as u64 {
            return Err(ZooError::TooLarge { name: self.name, width: size.width, bytes });
        }
        Ok(Model { architecture: self, onnx, ids_below })
    }

    fn width(&self, width: f32) -> Result<f32, ZooError> {
        let allowed = 0.01..=16.0;
        if allowed.contains(&width) {
            Ok(width)
        } else {
            Err(self.bad("width", &width, "a factor from 0.01 to 16".to_owned()))
        }
    }

    fn length(&self, sizes: &Sizes) -> Result<usize, ZooError> {
        let no_such = |what, takes| Err(ZooError::NoSuchSize { name: self.name, what, takes });
        match (self.takes, sizes.image_size, sizes.tokens) {
            (Takes::Image { side, .. }, None, None) => Ok(side),
            (Takes::Image { least, multiple, .. }, Some(side), None) => {
                if side % multiple == 0 && (least..=4096).contains(&side) {
                    Ok(side)
                } else {
                    Err(self.bad(
                        "image size",
                        &side,
                        format!("a multiple of {multiple} from {least} to 4096"),
                    ))
                }
            }
            (Takes::Sequence { length, .. }, None, None) => Ok(length),
            (Takes::Sequence { most, .. }, None, Some(length)) => {
                let most = most.unwrap_or(65_536);
                if (1..=most).contains(&length) {
                    Ok(length)
                } else {
                    Err(self.bad("length", &length, format!("1 to {most}")))
                }
            }
            (Takes::Fixed, None, None) => Ok(0),
            (Takes::Image { .. }, _, Some(_)) => no_such("tokens", "an image size"),
            (Takes::Sequence { .. }, Some(_), _) => no_such("image size", "tokens"),
            (Takes::Fixed, Some(_), _) => no_such("image size", "a width only"),
            (Takes::Fixed, _, Some(_)) => no_such("tokens", "a width only"),
        }
    }

    fn bad(&self, what: &'static str, given: &dyn std::fmt::Display, allowed: String) -> ZooError {
        ZooError::BadSize { name: self.name, what, given: given.to_string(), allowed }
    }
}

impl Model {
    /// How many numbers are learnt.
    pub fn parameters(&self) -> u64 {
        self.onnx.parameters()
    }

    /// How long a tenant's file is.
    pub fn file_bytes(&self) -> u64 {
        self.onnx.file_bytes()
    }

    /// A tenant's file. Equal seeds give equal bytes; every seed gives the same class.
    pub fn bytes(&self, seed: u64) -> Vec<u8> {
        self.onnx.to_bytes(seed)
    }

    /// What ids an input of requests may hold: those below this number; `None` for an input of floats.
    pub fn ids_below(&self, input: usize) -> Option<i64> {
        self.ids_below.get(input).copied().flatten()
    }
}

/// The seed of one of many tenants.
pub fn tenant_seed(seed: u64, tenant: usize) -> u64 {
    seed.wrapping_mul(1_000_003).wrapping_add(tenant as u64)
}

/// So many channels at some width: the multiple of 8 that is nearest, but not below nine tenths (as torchvision rounds).
fn wide(channels: usize, size: &Size) -> usize {
    let wanted = channels as f32 * size.width;
    let nearest = (((wanted + 4.0) / 8.0) as usize * 8).max(8);
    if (nearest as f32) < 0.9 * wanted { nearest + 8 } else { nearest }
}

/// The width of so many heads, each of 64 columns at width 1 and of a multiple of 4.
fn wide_heads(heads: usize, size: &Size) -> usize {
    let columns = ((64.0 * size.width / 4.0).round() as usize * 4).max(4);
    heads * columns
}
