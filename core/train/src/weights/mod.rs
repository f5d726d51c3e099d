//! Weight files: the backbone under torchvision's names, with a header that says what it is and
//! how it was made. The projection head, which torchvision does not know, lies in a file beside
//! it, so that `load_state_dict(strict=True)` takes the backbone as it is. A linear layer behind the
//! features lies where torchvision has the class layer, and loads as one of so many classes.

pub mod manifest;
mod metadata;
mod read;
mod save;

pub use metadata::ModelMetadata;
pub use read::WeightFile;
pub use save::{Precision, save_as, save_backbone, save_head};
pub use seedling_nn::layer::SqueezeOrder;

/// Name of the head's file beside a backbone's.
pub const HEAD_FILE: &str = "projection_head.safetensors";

/// Beginning of the names of the head's tensors.
pub const HEAD_PREFIX: &str = "projection_head.";

/// Key of the header that names the layer of the file which is a linear layer of ours: without it, such a
/// layer is a classifier's.
pub const LINEAR_LAYER: &str = "linear_layer";
