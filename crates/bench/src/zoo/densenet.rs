//! DenseNet (Huang et al., 2017), as torchvision builds it: each layer reads all before it, normalised anew.

use super::network::{Conv, Network, PLAIN, Value};
use super::scale::Scale;
use super::{Size, wide};
use crate::onnx_writer::Attribute;

/// What tells DenseNets apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dense {
    /// Channels that a layer adds.
    pub(super) growth: usize,
    /// Channels of the stem.
    pub(super) start: usize,
    pub(super) blocks: [usize; 4],
}

/// A layer's 1×1 convolution has this many times the growth.
const BOTTLENECK: usize = 4;

pub(super) fn build(net: &mut Network, size: &Size, dense: Dense) {
    let growth = wide(dense.growth, size);
    let x = net.input("image", &[3, size.length, size.length]);
    let x = net.conv("features.conv0", &x, Conv::new(wide(dense.start, size), 7).stride(2));
    let x = norm_relu(net, "features.norm0", &x);
    let mut x = net.max_pool("features.pool0", &x, [3, 2, 1], false);
    for (block, layers) in dense.blocks.into_iter().enumerate() {
        let number = block + 1;
        x = dense_block(net, &format!("features.denseblock{number}"), x, layers, growth);
        if number < dense.blocks.len() {
            let name = format!("features.transition{number}");
            let normed = norm_relu(net, &format!("{name}.norm"), &x);
            let halved = net.conv(&format!("{name}.conv"), &normed, Conv::new(x.channels() / 2, 1));
            x = net.mean_pool(&format!("{name}.pool"), &halved, 2);
        }
    }
    let x = norm_relu(net, "features.norm5", &x);
    let x = net.global_pool("pool", &x);
    let x = net.linear("classifier", &x, 1000, PLAIN);
    net.output("logits", &x);
}

fn norm_relu(net: &mut Network, name: &str, x: &Value) -> Value {
    let x = net.batch_norm(name, x, 1.0);
    net.relu(&format!("{name}.relu"), &x)
}

fn dense_block(net: &mut Network, name: &str, x: Value, layers: usize, growth: usize) -> Value {
    let mut features = vec![x];
    for number in 1..=layers {
        let part = |what: &str| format!("{name}.denselayer{number}.{what}");
        let all = concat(net, &part("Concat"), &features);
        let x = norm_relu(net, &part("norm1"), &all);
        let x = net.conv(&part("conv1"), &x, Conv::new(BOTTLENECK * growth, 1));
        let x = norm_relu(net, &part("norm2"), &x);
        features.push(net.conv(&part("conv2"), &x, Conv::new(growth, 3)));
    }
    concat(net, &format!("{name}.Concat"), &features)
}

/// All channels, end to end. One value is itself.
fn concat(net: &mut Network, name: &str, parts: &[Value]) -> Value {
    if let [one] = parts {
        return one.clone();
    }
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    let channels = parts.iter().map(Value::channels).sum::<usize>();
    let scale = Scale::joined(parts.iter().map(|part| (part.scale, part.channels())));
    let joined = net.onnx.named(name, "Concat", &names, &[("axis", Attribute::Int(1))]);
    let dims = [&[channels], &parts[0].dims[1..]].concat();
    Value { name: joined, dims, scale }
}
