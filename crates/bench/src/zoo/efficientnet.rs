//! EfficientNet-B0 (Tan and Le, 2019), as torchvision builds it: inverted residuals with squeeze and excitation, SiLU throughout.

use super::network::{Conv, Network, PLAIN, Value};
use super::{Size, wide};

/// Expansion, kernel, stride of the first block, channels, blocks.
const STAGES: [[usize; 5]; 7] = [
    [1, 3, 1, 16, 1],
    [6, 3, 2, 24, 2],
    [6, 5, 2, 40, 2],
    [6, 3, 2, 80, 3],
    [6, 5, 1, 112, 3],
    [6, 5, 2, 192, 4],
    [6, 3, 1, 320, 1],
];

/// A branch adds this part of the stream's power.
const BRANCH: f32 = 0.5;

pub(super) fn b0(net: &mut Network, size: &Size) {
    let x = net.input("image", &[3, size.length, size.length]);
    let mut x = conv_norm_silu(net, "features.0", &x, Conv::new(wide(32, size), 3).stride(2));
    for (stage, [expansion, kernel, first_stride, channels, blocks]) in STAGES.into_iter().enumerate() {
        for number in 0..blocks {
            let block = Block {
                expansion,
                kernel,
                stride: if number == 0 { first_stride } else { 1 },
                to: wide(channels, size),
            };
            x = block.build(net, &format!("features.{}.{number}", stage + 1), &x);
        }
    }
    let x = conv_norm_silu(net, "features.8", &x, Conv::new(wide(1280, size), 1));
    let x = net.global_pool("avgpool", &x);
    let x = net.linear("classifier.1", &x, 1000, PLAIN);
    net.output("logits", &x);
}

fn conv_norm_silu(net: &mut Network, name: &str, x: &Value, conv: Conv) -> Value {
    let x = net.conv(&format!("{name}.0"), x, conv);
    let x = net.batch_norm(&format!("{name}.1"), &x, 1.0);
    net.silu(&format!("{name}.2"), &x)
}

struct Block {
    expansion: usize,
    kernel: usize,
    stride: usize,
    to: usize,
}

impl Block {
    /// Wide, depthwise, weighed by channel, narrow.
    fn build(&self, net: &mut Network, name: &str, x: &Value) -> Value {
        let hidden = x.channels() * self.expansion;
        let mut layers = (0..).map(|layer| format!("{name}.block.{layer}"));
        let mut layer = || layers.next().expect("counting does not end");
        let mut branch = x.clone();
        if self.expansion != 1 {
            branch = conv_norm_silu(net, &layer(), &branch, Conv::new(hidden, 1));
        }
        let depthwise = Conv::new(hidden, self.kernel).stride(self.stride).groups(hidden);
        branch = conv_norm_silu(net, &layer(), &branch, depthwise);
        branch = net.squeeze_excite(&layer(), &branch, (x.channels() / 4).max(1), Network::silu);
        let joins = self.stride == 1 && x.channels() == self.to;
        let last = layer();
        branch = net.conv(&format!("{last}.0"), &branch, Conv::new(self.to, 1));
        branch = net.batch_norm(&format!("{last}.1"), &branch, if joins { BRANCH } else { 1.0 });
        if joins { net.add(&format!("{name}.add"), &branch, x) } else { branch }
    }
}
