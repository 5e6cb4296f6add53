//! The plain stacks before residuals: AlexNet (Krizhevsky, 2014) and VGG-16 (Simonyan and Zisserman, 2015), as torchvision builds them.
//!
//! Torch pools the last images to a fixed grid; at the usual image size that pool moves nothing and is left out, so the first linear
//! layer follows the size of the image.

use super::network::{Conv, HE, Network, PLAIN, Value};
use super::{Size, wide};

pub(super) fn alexnet(net: &mut Network, size: &Size) {
    let mut x = net.input("image", &[3, size.length, size.length]);
    let layers = [
        (0, Conv::new(64, 11).stride(4).pad(2), true),
        (3, Conv::new(192, 5), true),
        (6, Conv::new(384, 3), false),
        (8, Conv::new(256, 3), false),
        (10, Conv::new(256, 3), true),
    ];
    for (number, conv, pool) in layers {
        x = conv_relu(net, number, &x, Conv { to: wide(conv.to, size), ..conv });
        if pool {
            x = net.max_pool(&format!("features.{}", number + 2), &x, [3, 2, 0], false);
        }
    }
    classifier(net, &x, wide(4096, size), [1, 4, 6]);
}

pub(super) fn vgg16(net: &mut Network, size: &Size) {
    let mut x = net.input("image", &[3, size.length, size.length]);
    let mut number = 0;
    for (channels, convs) in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)] {
        for _ in 0..convs {
            x = conv_relu(net, number, &x, Conv::new(wide(channels, size), 3));
            number += 2;
        }
        x = net.max_pool(&format!("features.{number}"), &x, [2, 2, 0], false);
        number += 1;
    }
    classifier(net, &x, wide(4096, size), [0, 3, 6]);
}

fn conv_relu(net: &mut Network, number: usize, x: &Value, conv: Conv) -> Value {
    let x = net.conv(&format!("features.{number}"), x, conv.biased());
    net.relu(&format!("features.{}", number + 1), &x)
}

/// Two wide linear layers and the one that answers.
fn classifier(net: &mut Network, x: &Value, width: usize, numbers: [usize; 3]) {
    let mut x = net.flatten("flatten", x);
    for number in &numbers[..2] {
        x = net.linear(&format!("classifier.{number}"), &x, width, HE);
        x = net.relu(&format!("classifier.{number}.relu"), &x);
    }
    let x = net.linear(&format!("classifier.{}", numbers[2]), &x, 1000, PLAIN);
    net.output("logits", &x);
}
