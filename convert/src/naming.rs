//! What other programs call a network's tensors. Ours have torchvision's names (DeiT: timm's).
//!
//! A name says which layer of which block a tensor belongs to (`Place`); each naming writes such
//! places in its own way.

use seedling_core::backbones::Arch;
use seedling_core::layout::Entry;
use seedling_core::nn::window::Padding;

/// Whose names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// torchvision's, and for transformers timm's: ours.
    Torchvision,
    Timm,
    /// d-li14's MobileNets, and the paper's program (ssl-small), which took them over.
    DLi14,
    /// lukemelas' EfficientNet.
    Lukemelas,
    /// torchvision's ResNet as a sequence of its children, as lightly's examples have it.
    Sequence,
}

impl Naming {
    /// All, the likeliest first.
    pub const ALL: [Naming; 5] = [
        Naming::Torchvision,
        Naming::Timm,
        Naming::DLi14,
        Naming::Lukemelas,
        Naming::Sequence,
    ];

    /// In prose.
    pub fn title(self) -> &'static str {
        match self {
            Naming::Torchvision => "torchvision",
            Naming::Timm => "timm",
            Naming::DLi14 => "d-li14 or ssl-small",
            Naming::Lukemelas => "lukemelas' EfficientNet",
            Naming::Sequence => "a sequence of torchvision's layers",
        }
    }

    /// The name of the layer of classes, where a linear layer behind the features goes.
    pub fn class_layer(self, arch: Arch) -> &'static str {
        match (self, arch.name()) {
            (Naming::Timm, name) if name.starts_with("mobilenet") => "classifier",
            (Naming::Timm, "efficientnet_b0") => "classifier",
            _ => arch.spec().class_layer.trim_end_matches('.'),
        }
    }

    /// Epsilon of batch norm in this program's definition of `arch`, which no file states.
    pub fn norm_eps(self, arch: Arch) -> f32 {
        match (self, arch.name()) {
            (Naming::Timm, "mobilenet_v3_small" | "mobilenet_v3_large") => 1e-5,
            (Naming::DLi14, _) => 1e-5,
            (Naming::Lukemelas, _) => 1e-3,
            _ => arch.spec().norm_eps,
        }
    }

    /// How convolutions pad in this program's definition.
    pub fn padding(self) -> Padding {
        match self {
            Naming::Lukemelas => Padding::Same,
            _ => Padding::Symmetric,
        }
    }

    /// The name of `entry` of `arch`, if this program has such a network.
    pub fn name(self, arch: Arch, entry: &Entry) -> Option<String> {
        if self == Naming::Torchvision {
            return Some(entry.name.clone());
        }
        if self == Naming::Sequence {
            return sequence(arch, &entry.name);
        }
        let blocks = blocks(arch)?;
        let place = Place::locate(arch, blocks, &entry.name)?;
        match self {
            Naming::Torchvision | Naming::Sequence => None,
            Naming::Timm => Some(timm(arch, blocks, &place)),
            Naming::DLi14 => d_li14(arch, &place),
            Naming::Lukemelas => lukemelas(arch, &place),
        }
    }
}

/// Blocks of each stage of timm's, of the networks that are made of inverted residuals.
fn blocks(arch: Arch) -> Option<&'static [usize]> {
    Some(match arch.name() {
        "mobilenet_v3_small" => &[1, 2, 3, 2, 3],
        "mobilenet_v3_large" => &[1, 2, 3, 4, 2, 3],
        "mobilenet_v2" => &[1, 2, 3, 4, 3, 3, 1],
        "efficientnet_b0" => &[1, 2, 2, 3, 3, 4, 1],
        _ => return None,
    })
}

/// Where a tensor belongs in such a network.
struct Place<'a> {
    layer: Layer,
    /// Batch norm's, not the convolution's.
    norm: bool,
    /// `weight`, `running_mean`, ...
    leaf: &'a str,
}

enum Layer {
    Stem,
    /// Of the block of that number, counted from 0.
    Block(Block, Part),
    Last,
    /// MobileNetV3's layer of features.
    Features,
}

#[derive(Clone, Copy)]
struct Block {
    index: usize,
    expands: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Expand,
    Depthwise,
    /// Squeeze-excite's first or second layer.
    Squeeze,
    Excite,
    Project,
}

impl<'a> Place<'a> {
    fn locate(arch: Arch, blocks: &[usize], name: &'a str) -> Option<Place<'a>> {
        let all: usize = blocks.iter().sum();
        let (path, leaf) = name.rsplit_once('.')?;
        let parts: Vec<&str> = path.split('.').collect();
        let number = |part: &str| part.parse::<usize>().ok();
        let of = |layer, norm| Some(Place { layer, norm, leaf });
        let is_norm = |part: &str| Some(number(part)? == 1);
        match parts[..] {
            ["classifier", "0"] => of(Layer::Features, false),
            ["features", "0", sub] => of(Layer::Stem, is_norm(sub)?),
            // V2's projections have no sequence of their own: conv.2 and conv.3, say.
            ["features", i, "conv", j] => {
                let index = number(i)?.checked_sub(1)?;
                let block = Block {
                    index,
                    expands: index > 0,
                };
                let norm = number(j)? == 2 + usize::from(block.expands);
                of(Layer::Block(block, Part::Project), norm)
            }
            ["features", i, "conv", j, sub] => {
                let index = number(i)?.checked_sub(1)?;
                let block = Block {
                    index,
                    expands: index > 0,
                };
                let part = match number(j)? + usize::from(!block.expands) {
                    0 => Part::Expand,
                    _ => Part::Depthwise,
                };
                of(Layer::Block(block, part), is_norm(sub)?)
            }
            ["features", last, sub] if number(last)? == last_index(arch, all) => {
                of(Layer::Last, is_norm(sub)?)
            }
            ["features", i, "block", j, sub] => {
                Self::of_block(arch, number(i)?.checked_sub(1)?, number(j)?, sub, leaf)
            }
            ["features", stage, repeat, "block", j, sub] => {
                let before: usize = blocks.get(..number(stage)?.checked_sub(1)?)?.iter().sum();
                Self::of_block(arch, before + number(repeat)?, number(j)?, sub, leaf)
            }
            _ => None,
        }
    }

    fn of_block(arch: Arch, index: usize, j: usize, sub: &str, leaf: &'a str) -> Option<Place<'a>> {
        // Only the first block of each has nothing to expand; V3-Small's has 16 to 16, too.
        let block = Block {
            index,
            expands: index > 0,
        };
        let squeezes = squeezes(arch, index);
        let order = [
            (block.expands, Part::Expand),
            (true, Part::Depthwise),
            (squeezes, Part::Squeeze),
            (true, Part::Project),
        ];
        let part = order.iter().filter(|(there, _)| *there).nth(j)?.1;
        let (part, norm) = match (part, sub) {
            (Part::Squeeze, "fc1") => (Part::Squeeze, false),
            (Part::Squeeze, "fc2") => (Part::Excite, false),
            (part, sub) => (part, sub == "1"),
        };
        Some(Place {
            layer: Layer::Block(block, part),
            norm,
            leaf,
        })
    }
}

fn last_index(arch: Arch, blocks: usize) -> usize {
    match arch.name() {
        "efficientnet_b0" => 8,
        _ => blocks + 1,
    }
}

/// Whether a block has squeeze-excite (Howard et al. 2019, tables 1 and 2).
fn squeezes(arch: Arch, index: usize) -> bool {
    match arch.name() {
        "mobilenet_v3_small" => !matches!(index, 1 | 2),
        "mobilenet_v3_large" => matches!(index, 3..=5 | 10..=14),
        "efficientnet_b0" => true,
        _ => false,
    }
}

/// conv1, bn1, ReLU, max-pool, layer1 to layer4, by their places.
fn sequence(arch: Arch, name: &str) -> Option<String> {
    if !arch.name().starts_with("resnet") {
        return None;
    }
    let (first, rest) = name.split_once('.')?;
    let place = match first {
        "conv1" => 0,
        "bn1" => 1,
        layer => 3 + layer.strip_prefix("layer")?.parse::<usize>().ok()?,
    };
    Some(format!("{place}.{rest}"))
}

fn timm(arch: Arch, blocks: &[usize], place: &Place) -> String {
    let Place { layer, norm, leaf } = place;
    let v3 = arch.name().starts_with("mobilenet_v3");
    match layer {
        Layer::Stem if *norm => format!("bn1.{leaf}"),
        Layer::Stem => format!("conv_stem.{leaf}"),
        Layer::Last if v3 => {
            let layer = if *norm { "bn1" } else { "conv" };
            format!("blocks.{}.0.{layer}.{leaf}", blocks.len())
        }
        Layer::Last if *norm => format!("bn2.{leaf}"),
        Layer::Last | Layer::Features => format!("conv_head.{leaf}"),
        Layer::Block(block, part) => {
            let (mut stage, mut inside) = (0, block.index);
            while let Some(there) = blocks.get(stage).filter(|there| inside >= **there) {
                inside -= there;
                stage += 1;
            }
            let layer = match (part, norm, block.expands) {
                (Part::Expand, false, _) => "conv_pw",
                (Part::Expand, true, _) => "bn1",
                (Part::Depthwise, false, _) => "conv_dw",
                (Part::Depthwise, true, true) => "bn2",
                (Part::Depthwise, true, false) => "bn1",
                (Part::Squeeze, ..) => "se.conv_reduce",
                (Part::Excite, ..) => "se.conv_expand",
                (Part::Project, false, true) => "conv_pwl",
                (Part::Project, false, false) => "conv_pw",
                (Part::Project, true, true) => "bn3",
                (Part::Project, true, false) => "bn2",
            };
            format!("blocks.{stage}.{inside}.{layer}.{leaf}")
        }
    }
}

fn d_li14(arch: Arch, place: &Place) -> Option<String> {
    let Place { layer, norm, leaf } = place;
    let v3 = arch.name().starts_with("mobilenet_v3");
    if !arch.name().starts_with("mobilenet") {
        return None;
    }
    let norm = usize::from(*norm);
    Some(match layer {
        Layer::Stem => format!("features.0.{norm}.{leaf}"),
        Layer::Last => format!("conv.{norm}.{leaf}"),
        Layer::Features => format!("classifier.0.{leaf}"),
        Layer::Block(block, part) => {
            // Places in a sequence that counts activations and, in V3, a squeeze-excite that may do
            // nothing: 0 1 (2) 3 4 (5 or 6) 7 8 with an expansion, 0 1 (2 3) 4 5 without.
            let inner = match (part, v3, block.expands) {
                (Part::Expand, ..) => format!("{norm}"),
                (Part::Depthwise, _, true) => format!("{}", 3 + norm),
                (Part::Depthwise, _, false) => format!("{norm}"),
                (Part::Squeeze, _, true) => "5.fc.0".into(),
                (Part::Excite, _, true) => "5.fc.2".into(),
                (Part::Squeeze, _, false) => "3.fc.0".into(),
                (Part::Excite, _, false) => "3.fc.2".into(),
                (Part::Project, true, true) => format!("{}", 7 + norm),
                (Part::Project, true, false) => format!("{}", 4 + norm),
                (Part::Project, false, true) => format!("{}", 6 + norm),
                (Part::Project, false, false) => format!("{}", 3 + norm),
            };
            format!("features.{}.conv.{inner}.{leaf}", block.index + 1)
        }
    })
}

fn lukemelas(arch: Arch, place: &Place) -> Option<String> {
    let Place { layer, norm, leaf } = place;
    if arch.name() != "efficientnet_b0" {
        return None;
    }
    Some(match layer {
        Layer::Stem if *norm => format!("_bn0.{leaf}"),
        Layer::Stem => format!("_conv_stem.{leaf}"),
        Layer::Last if *norm => format!("_bn1.{leaf}"),
        Layer::Last => format!("_conv_head.{leaf}"),
        Layer::Features => return None,
        Layer::Block(block, part) => {
            let layer = match (part, norm) {
                (Part::Expand, false) => "_expand_conv",
                (Part::Expand, true) => "_bn0",
                (Part::Depthwise, false) => "_depthwise_conv",
                (Part::Depthwise, true) => "_bn1",
                (Part::Squeeze, _) => "_se_reduce",
                (Part::Excite, _) => "_se_expand",
                (Part::Project, false) => "_project_conv",
                (Part::Project, true) => "_bn2",
            };
            format!("_blocks.{}.{layer}.{leaf}", block.index)
        }
    })
}
