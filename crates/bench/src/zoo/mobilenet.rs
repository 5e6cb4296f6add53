//! MobileNetV2 (Sandler et al., 2018), as torchvision builds it.

use super::network::{Conv, Network, PLAIN, Value};
use super::{Size, wide};

/// Expansion, channels, blocks, stride of the first.
const STAGES: [[usize; 4]; 7] = [
    [1, 16, 1, 1],
    [6, 24, 2, 2],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
];

/// A branch adds this part of the stream's power.
const BRANCH: f32 = 0.5;

pub(super) fn build(net: &mut Network, size: &Size) {
    let x = net.input("image", &[3, size.length, size.length]);
    let mut x = conv_norm_relu6(net, "features.0", &x, Conv::new(wide(32, size), 3).stride(2));
    let mut index = 1;
    for [expansion, channels, blocks, first_stride] in STAGES {
        for number in 0..blocks {
            let stride = if number == 0 { first_stride } else { 1 };
            x = block(net, &format!("features.{index}"), &x, expansion, wide(channels, size), stride);
            index += 1;
        }
    }
    // The published network is widened but never narrowed at its end.
    let last = wide(1280, &Size { width: size.width.max(1.0), ..*size });
    let x = conv_norm_relu6(net, &format!("features.{index}"), &x, Conv::new(last, 1));
    let x = net.global_pool("pool", &x);
    let x = net.linear("classifier.1", &x, 1000, PLAIN);
    net.output("logits", &x);
}

fn conv_norm_relu6(net: &mut Network, name: &str, x: &Value, conv: Conv) -> Value {
    let x = net.conv(&format!("{name}.0"), x, conv);
    let x = net.batch_norm(&format!("{name}.1"), &x, 1.0);
    net.relu6(&format!("{name}.2"), &x)
}

/// Wide, depthwise, narrow; the narrow end is linear.
fn block(net: &mut Network, name: &str, x: &Value, expansion: usize, to: usize, stride: usize) -> Value {
    let hidden = x.channels() * expansion;
    let mut branch = x.clone();
    let mut layer = 0;
    if expansion != 1 {
        branch = conv_norm_relu6(net, &format!("{name}.conv.{layer}"), &branch, Conv::new(hidden, 1));
        layer += 1;
    }
    let depthwise = Conv::new(hidden, 3).stride(stride).groups(hidden);
    branch = conv_norm_relu6(net, &format!("{name}.conv.{layer}"), &branch, depthwise);
    let joins = stride == 1 && x.channels() == to;
    branch = net.conv(&format!("{name}.conv.{}", layer + 1), &branch, Conv::new(to, 1));
    branch = net.batch_norm(&format!("{name}.conv.{}", layer + 2), &branch, if joins { BRANCH } else { 1.0 });
    if joins { net.add(&format!("{name}.add"), x, &branch) } else { branch }
}
