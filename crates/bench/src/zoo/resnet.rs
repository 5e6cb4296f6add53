//! ResNet (He et al., 2016), as torchvision builds it: the stride of a bottleneck is in its 3×3 convolution.

use super::network::{Conv, Network, PLAIN, Value};
use super::{Size, wide};

/// What a stage repeats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Block {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1, 3×3, 1×1 to four times the width.
    Bottleneck,
}

impl Block {
    fn expansion(self) -> usize {
        match self {
            Block::Basic => 1,
            Block::Bottleneck => 4,
        }
    }
}

/// A branch adds this part of the stream's power: what training arrives at, and what keeps 50 blocks in range.
const BRANCH: f32 = 0.5;

pub(super) fn build(net: &mut Network, size: &Size, block: Block, blocks: [usize; 4]) {
    let x = net.input("image", &[3, size.length, size.length]);
    let x = net.conv("conv1", &x, Conv::new(wide(64, size), 7).stride(2));
    let x = net.batch_norm("bn1", &x, 1.0);
    let x = net.relu("relu", &x);
    let mut x = net.max_pool("maxpool", &x, [3, 2, 1], false);
    for (stage, count) in blocks.into_iter().enumerate() {
        for number in 0..count {
            let stride = if stage > 0 && number == 0 { 2 } else { 1 };
            let name = format!("layer{}.{number}", stage + 1);
            x = residual(net, &name, &x, block, wide(64 << stage, size), stride);
        }
    }
    let x = net.global_pool("avgpool", &x);
    let x = net.linear("fc", &x, 1000, PLAIN);
    net.output("logits", &x);
}

fn residual(net: &mut Network, name: &str, x: &Value, block: Block, width: usize, stride: usize) -> Value {
    let part = |what: &str| format!("{name}.{what}");
    let layers: &[(usize, Conv)] = &match block {
        Block::Basic => vec![(1, Conv::new(width, 3).stride(stride)), (2, Conv::new(width, 3))],
        Block::Bottleneck => vec![
            (1, Conv::new(width, 1)),
            (2, Conv::new(width, 3).stride(stride)),
            (3, Conv::new(width * block.expansion(), 1)),
        ],
    };
    let mut branch = x.clone();
    for &(number, conv) in layers {
        let last = number == layers.len();
        branch = net.conv(&part(&format!("conv{number}")), &branch, conv);
        branch = net.batch_norm(&part(&format!("bn{number}")), &branch, if last { BRANCH } else { 1.0 });
        if !last {
            branch = net.relu(&part(&format!("relu{number}")), &branch);
        }
    }
    let to = width * block.expansion();
    let stream = if stride != 1 || x.channels() != to {
        let down = net.conv(&part("downsample.0"), x, Conv::new(to, 1).stride(stride));
        net.batch_norm(&part("downsample.1"), &down, 1.0)
    } else {
        x.clone()
    };
    let sum = net.add(&part("add"), &branch, &stream);
    net.relu(&part("relu"), &sum)
}
