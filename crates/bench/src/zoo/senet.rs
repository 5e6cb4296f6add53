//! SENet-154 (Hu et al., 2018), as Cadene's pretrained models and timm build it: bottlenecks of 64 groups, weighed by channel.

use super::network::{Conv, Network, PLAIN, Value};
use super::{Size, wide};

const BLOCKS: [usize; 4] = [3, 8, 36, 3];
const GROUPS: usize = 64;

/// A squeeze has this part of the channels.
const REDUCTION: usize = 16;

/// A branch adds this part of the stream's power, before its channels are weighed by a half or so.
const BRANCH: f32 = 0.8;

pub(super) fn build(net: &mut Network, size: &Size) {
    let mut x = net.input("image", &[3, size.length, size.length]);
    for (number, (channels, stride)) in [(64, 2), (64, 1), (128, 1)].into_iter().enumerate() {
        let part = |what: &str| format!("layer0.{what}{}", number + 1);
        x = net.conv(&part("conv"), &x, Conv::new(wide(channels, size), 3).stride(stride));
        x = net.batch_norm(&part("bn"), &x, 1.0);
        x = net.relu(&part("relu"), &x);
    }
    x = net.max_pool("layer0.pool", &x, [3, 2, 0], true);
    for (stage, count) in BLOCKS.into_iter().enumerate() {
        for number in 0..count {
            let stride = if stage > 0 && number == 0 { 2 } else { 1 };
            x = block(net, &format!("layer{}.{number}", stage + 1), &x, wide(64 << stage, size), stride);
        }
    }
    let x = net.global_pool("avg_pool", &x);
    let x = net.linear("last_linear", &x, 1000, PLAIN);
    net.output("logits", &x);
}

fn block(net: &mut Network, name: &str, x: &Value, width: usize, stride: usize) -> Value {
    let part = |what: &str| format!("{name}.{what}");
    // As many groups as published, where the width is.
    let groups = GROUPS.min(width);
    let layers = [
        Conv::new(2 * width, 1),
        Conv::new(4 * width, 3).stride(stride).groups(groups),
        Conv::new(4 * width, 1),
    ];
    let mut branch = x.clone();
    for (index, conv) in layers.into_iter().enumerate() {
        let last = index + 1 == layers.len();
        branch = net.conv(&part(&format!("conv{}", index + 1)), &branch, conv);
        branch = net.batch_norm(&part(&format!("bn{}", index + 1)), &branch, if last { BRANCH } else { 1.0 });
        if !last {
            branch = net.relu(&part(&format!("relu{}", index + 1)), &branch);
        }
    }
    branch = net.squeeze_excite(&part("se_module"), &branch, 4 * width / REDUCTION, Network::relu);
    let stream = if stride != 1 || x.channels() != 4 * width {
        // The first stage's shortcut is 1×1, later ones are 3×3.
        let kernel = if stride == 1 { 1 } else { 3 };
        let down = net.conv(&part("downsample.0"), x, Conv::new(4 * width, kernel).stride(stride));
        net.batch_norm(&part("downsample.1"), &down, 1.0)
    } else {
        x.clone()
    };
    let sum = net.add(&part("add"), &branch, &stream);
    net.relu(&part("relu"), &sum)
}
