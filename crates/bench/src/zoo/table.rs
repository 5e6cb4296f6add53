//! Every architecture, one a row.

use super::densenet::{self, Dense};
use super::network::Network;
use super::recurrent::{self, Layer};
use super::resnet::{self, Block};
use super::{Architecture, Size, Takes, bert, classic, efficientnet, mobilenet, senet, tabular, vit};

const IMAGE: Takes = Takes::Image { side: 224, least: 32, multiple: 32 };
const LARGE_IMAGE: Takes = Takes::Image { side: 224, least: 64, multiple: 32 };
const PATCHES: Takes = Takes::Image { side: 224, least: 16, multiple: 16 };
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

/// The zoo. Parameters are those of torchvision's, timm's, transformers' and Keras's models of that name; recurrent networks
/// and the recommender are sized here.
#[rustfmt::skip] // one architecture a line
pub static ARCHITECTURES: &[Architecture] = &[
    row("alexnet", 61_100_840, LARGE_IMAGE, "five convolutions and three wide linear layers", classic::alexnet),
    row("vgg-16", 138_357_544, IMAGE, "thirteen 3×3 convolutions and three wide linear layers", classic::vgg16),
    row("resnet-18", 11_689_512, IMAGE, "residual 3×3 convolutions", |net, size| resnet::build(net, size, Block::Basic, [2, 2, 2, 2])),
    row("resnet-34", 21_797_672, IMAGE, "residual 3×3 convolutions", |net, size| resnet::build(net, size, Block::Basic, [3, 4, 6, 3])),
    row("resnet-50", 25_557_032, IMAGE, "residual bottlenecks", |net, size| resnet::build(net, size, Block::Bottleneck, [3, 4, 6, 3])),
    row("resnet-101", 44_549_160, IMAGE, "residual bottlenecks", |net, size| resnet::build(net, size, Block::Bottleneck, [3, 4, 23, 3])),
    row("resnet-152", 60_192_808, IMAGE, "residual bottlenecks", |net, size| resnet::build(net, size, Block::Bottleneck, [3, 8, 36, 3])),
    row("densenet-121", 7_978_856, IMAGE, "each layer reads all before it", |net, size| densenet::build(net, size, Dense { growth: 32, start: 64, blocks: [6, 12, 24, 16] })),
    row("densenet-161", 28_681_000, IMAGE, "each layer reads all before it", |net, size| densenet::build(net, size, Dense { growth: 48, start: 96, blocks: [6, 12, 36, 24] })),
    row("senet-154", 115_088_984, IMAGE, "grouped bottlenecks with squeeze and excitation", senet::build),
    row("mobilenet-v2", 3_504_872, IMAGE, "inverted residuals with depthwise convolutions", mobilenet::build),
    row("efficientnet-b0", 5_288_548, IMAGE, "inverted residuals with squeeze and excitation", efficientnet::b0),
    row("vit-b16", 86_567_656, PATCHES, "12 transformer layers of 768 over 197 patches", |net, size| vit::build(net, size, 12)),
    row("vit-ti", 5_717_416, PATCHES, "12 transformer layers of 192 over 197 patches", |net, size| vit::build(net, size, 3)),
    row("bert-base", 109_482_240, TEXT, "12 transformer layers of 768", |net, size| bert::build(net, size, 12, 12)),
    row("bert-small", 28_763_648, TEXT, "4 transformer layers of 512", |net, size| bert::build(net, size, 4, 8)),
    row("minilm", 22_713_216, TEXT, "6 transformer layers of 384", bert::minilm),
    row("lstm", 2_363_904, SERIES, "one LSTM layer of 512 over a series, and a linear layer", |net, size| recurrent::build(net, size, Layer::Lstm, 1)),
    row("lstm-2", 4_465_152, SERIES, "two LSTM layers of 512 over a series, and a linear layer", |net, size| recurrent::build(net, size, Layer::Lstm, 2)),
    row("gru", 1_838_592, SERIES, "one GRU layer of 512 over a series, and a linear layer", |net, size| recurrent::build(net, size, Layer::Gru, 1)),
    row("mlp", 669_706, Takes::Fixed, "three linear layers over 784 numbers", tabular::mlp),
    row("two-tower", 10_674_240, Takes::Fixed, "embeddings of a user and a film, a tower each, and their product", tabular::two_tower),
];
