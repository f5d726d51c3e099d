//! What `embed` and `search` extract features with: one or two networks, and so many views.

use crate::console::Console;
use crate::eval::{Loaded, load};
use crate::flags::Common;
use seedling_core::config::Config;
use seedling_core::data::{PhotoSource, Photos};
use seedling_core::eval::Features;
use seedling_core::eval::extract::Extracted;
use seedling_core::eval::tta::{self, FeatureModel};
use seedling_core::index::{self, AlbumIndex, StoredFeatures};
use seedling_core::{Error, Result};
use std::path::Path;

/// One or two networks.
pub struct FeatureModels {
    networks: Vec<Loaded>,
    tta_views: usize,
}

impl FeatureModels {
    /// Loads what `--weights` and `--and` name.
    ///
    /// # Errors
    /// The settings or a file cannot be used.
    pub fn open(
        weights: &str,
        and: Option<&str>,
        arch: Option<&str>,
        tta_views: usize,
        common: &Common,
        console: &Console,
    ) -> Result<FeatureModels> {
        let mut networks = vec![load(weights, arch, common, console)?];
        if let Some(second) = and {
            // The shipped network beside a small one is the large one.
            let other = match (second, networks[0].file.metadata.architecture.arch.name()) {
                ("shipped", "mobilenet_v3_small") => Some("mobilenet_v3_large"),
                _ => None,
            };
            networks.push(load(second, other, common, console)?);
        }
        Ok(FeatureModels {
            networks,
            tta_views,
        })
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.networks[0].config
    }

    /// Length of what they see.
    pub fn feature_dim(&self) -> usize {
        tta::feature_dim(&self.models())
    }

    /// What tells their features from others': weights, sizes and views.
    ///
    /// # Errors
    /// A weight file cannot be read any more.
    pub fn name(&self) -> Result<String> {
        let networks = self.networks.iter();
        let weights = networks.map(|network| (&network.file, network.image_size));
        index::models_key(weights, self.tta_views)
    }

    /// Extracts features of the photos that are not stored yet.
    ///
    /// # Errors
    /// A network or the disk refuses.
    pub fn extract_missing(
        &self,
        source: &dyn PhotoSource,
        stored: &mut StoredFeatures,
        console: &Console,
    ) -> Result<()> {
        let bar = console.bar(0, "embed");
        stored.extract(&self.models(), self.tta_views, source, |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            Ok(())
        })?;
        bar.finish_and_clear();
        Ok(())
    }

    /// Extracts features of all photos.
    ///
    /// # Errors
    /// A network refuses.
    pub fn extract(&self, source: &dyn PhotoSource, console: &Console) -> Result<Extracted> {
        let all: Vec<usize> = (0..source.len()).collect();
        let bar = console.bar(all.len() as u64, "embed");
        let found = tta::extract(&self.models(), self.tta_views, source, &all, |done| {
            bar.set_position(done as u64);
            Ok(())
        })?;
        bar.finish_and_clear();
        Ok(found)
    }

    /// Features of one photo in a file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn extract_file(&self, path: &Path) -> Result<Features> {
        let mut photos = Photos::default();
        photos.add_file(&path.to_string_lossy(), path.to_path_buf())?;
        let found = tta::extract(&self.models(), self.tta_views, &photos, &[0], |_| Ok(()))?;
        found.check(1)?;
        Ok(found.features)
    }

    fn models(&self) -> Vec<FeatureModel<'_>> {
        self.networks
            .iter()
            .map(|loaded| FeatureModel {
                encoder: &*loaded.encoder,
                image_size: loaded.image_size,
                normalize: &loaded.file.metadata.normalize,
                // Part of the network that was loaded.
                layer: None,
            })
            .collect()
    }
}

/// The index at `path`, and its photos' names.
///
/// # Errors
/// There is none, or it was made by other weights or views.
pub fn open_index(path: &Path, models: &FeatureModels) -> Result<(AlbumIndex, Vec<String>)> {
    if !path.is_file() {
        return Err(Error::file(
            path,
            "no such index; `seedling embed PHOTOS --index` makes one",
        ));
    }
    let Some((ids, features)) = StoredFeatures::peek(path, &models.name()?, models.feature_dim())?
    else {
        return Err(Error::file(
            path,
            "is no index of these weights at so many views; `seedling embed PHOTOS --index` makes one",
        ));
    };
    Ok((AlbumIndex::new(&features)?, ids))
}
