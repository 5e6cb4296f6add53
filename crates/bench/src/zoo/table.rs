//! Every architecture, one a row.

use super::bert::{self, Sizes};
use super::network::Network;
use super::resnet::{self, Block};
use super::{Architecture, Size, Takes, mobilenet, recurrent};

const IMAGE: Takes = Takes::Image { side: 224, multiple: 32 };
const TEXT: Takes = Takes::Sequence { length: 128, most: Some(bert::PLACES) };
const SERIES: Takes = Takes::Sequence { length: 32, most: None };

const fn row(
    name: &'static str,
    parameters: u64,
    takes: Takes,
    about: &'static str,
    build: fn(&mut Network, &Size),
) -> Architecture {
    Architecture { name, about, parameters, takes, build }
}

/// The zoo. Parameters are those of torchvision's, timm's and transformers' models of the same name.
#[rustfmt::skip] // one architecture a line
pub static ARCHITECTURES: &[Architecture] = &[
    row("resnet-18", 11_689_512, IMAGE, "18 layers of residual 3×3 convolutions", |net, size| resnet::build(net, size, Block::Basic, [2, 2, 2, 2])),
    row("resnet-50", 25_557_032, IMAGE, "50 layers of residual bottlenecks", |net, size| resnet::build(net, size, Block::Bottleneck, [3, 4, 6, 3])),
    row("mobilenet-v2", 3_504_872, IMAGE, "inverted residuals with depthwise convolutions", mobilenet::build),
    row("bert-base", 109_482_240, TEXT, "12 transformer layers of 768", |net, size| bert::build(net, size, Sizes { layers: 12, heads: 12 })),
    row("bert-small", 28_763_648, TEXT, "4 transformer layers of 512", |net, size| bert::build(net, size, Sizes { layers: 4, heads: 8 })),
    row("lstm", 2_363_904, SERIES, "one LSTM layer of 512 over a series, and a linear layer", |net, size| recurrent::lstm(net, size, 1)),
];

/// Architectures that people look for here, and why they are not.
pub(super) const UNSERVED: &[(&str, &str)] =
    &[("gru", "the planner has no GRU operator; `lstm` is the recurrent network that is served")];
