//! The published recipes: a TOML file each in `presets/`, to be copied and changed.

use super::Layer;
use crate::{Error, Result};

/// Name and text of each recipe. The text's first line says what it is.
pub const PRESETS: &[(&str, &str)] = &[
    ("moco-v2", include_str!("presets/moco-v2.toml")),
    ("baseline", include_str!("presets/baseline.toml")),
    ("study", include_str!("presets/study.toml")),
    ("improved", include_str!("presets/improved.toml")),
    ("cifar", include_str!("presets/cifar.toml")),
    ("smoothed", include_str!("presets/smoothed.toml")),
];

/// The text of the recipe of that name.
///
/// # Errors
/// No recipe has that name.
pub fn preset_text(name: &str) -> Result<&'static str> {
    let found = PRESETS.iter().find(|(known, _)| *known == name);
    found.map(|(_, text)| *text).ok_or_else(|| {
        let names: Vec<&str> = PRESETS.iter().map(|(name, _)| *name).collect();
        Error::Config(format!(
            "unknown preset `{name}`; expected one of {}",
            names.join(", ")
        ))
    })
}

/// A recipe as a layer over the defaults of `pretrain`.
///
/// # Errors
/// No recipe has that name.
pub fn preset(name: &str) -> Result<Layer> {
    Layer::parse(preset_text(name)?, &format!("--preset {name}"))
}
