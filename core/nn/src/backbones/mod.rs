//! Backbones: image to features. A network is a list of stages in an order, made in its family's
//! file; everything else derives from its [`Spec`].
//!
//! To add one, write its spec (and, where they are new, its blocks) and list it here: settings,
//! `--help`, weight files, the forecast of memory and the test suite run over [`Arch::ALL`].

mod arch;
mod chain;
mod deit;
mod efficientnet;
mod mobilenet;
mod resnet;

pub use arch::{Arch, Shape, Spec};
pub use chain::{Backbone, BackboneCache};

arch::networks! {
    MOBILENET_V3_SMALL = mobilenet::V3_SMALL;
    MOBILENET_V3_LARGE = mobilenet::V3_LARGE;
    EFFICIENTNET_B0 = efficientnet::B0;
    RESNET18 = resnet::R18;
    RESNET50 = resnet::R50;
    DEIT_TINY = deit::TINY;
    MOBILENET_V2 = mobilenet::V2;
}
