//! The end of a run: batch norm's running statistics, and the weights.

use super::Session;
use crate::memory::forecast::STATISTICS_BATCH;
use crate::weights::{HEAD_FILE, ModelMetadata, Precision};
use crate::{Error, Result};
use seedling_base::rng::{Purpose, Rng};
use seedling_nn::encoder::LinearLayer;
use seedling_ssl::eval::extract::Extractor;
use std::path::{Path, PathBuf};

/// Name of the trained backbone in a run folder.
pub const WEIGHTS_FILE: &str = "weights.safetensors";

/// Photos that statistics are estimated from; more change them no further.
const STATISTICS_PHOTOS: usize = 2048;

impl Session {
    /// Replaces batch norm's running statistics by their plain average over photos as they are
    /// measured and searched: unaltered. During training they follow augmented views, and a
    /// short run leaves them stale. Does nothing unless `reestimate_bn` is set.
    ///
    /// # Errors
    /// No photo can be read, or someone has canceled: the statistics are then what they were.
    pub fn reestimate_statistics(&mut self) -> Result<()> {
        if !self.config().reestimate_bn {
            return Ok(());
        }
        let pool = self.state().pool.clone();
        self.keep_statistics()?;
        let estimated = pool.install(|| self.estimate_statistics());
        if estimated.is_err() {
            self.recall_statistics()?;
        }
        estimated
    }

    fn estimate_statistics(&mut self) -> Result<()> {
        let run = self.state();
        let (source, normalize) = (run.source.clone(), run.metadata.normalize);
        let (side, cancel) = (run.metadata.image_size, run.cancel.clone());
        // Mixed, since a dataset is sorted: a batch of one class has less variance than the dataset.
        let mut order =
            Rng::new(run.config.seed, Purpose::Order, u64::MAX, 0).permutation(source.len());
        order.truncate(STATISTICS_PHOTOS);
        // A micro-batch's memory is what the run was planned for.
        let batch = run.config.bn_group.max(STATISTICS_BATCH);
        self.network().release();
        let mut batches = 0;
        for photos in order.chunks(batch) {
            cancel.check()?;
            // A small last batch would count as much as a full one.
            if batches > 0 && photos.len() < batch {
                break;
            }
            let extractor = Extractor {
                encoder: self.network(),
                source: &*source,
                image_size: side,
                normalize: &normalize,
            };
            let images = extractor.images(photos, &mut Vec::new());
            if !images.is_empty() {
                batches += 1;
                // Moving by 1/n at the n-th batch makes the plain average; the first forgets all.
                self.observe(&images, (side, side), 1.0 / batches as f32)?;
            }
        }
        self.network().release();
        match batches {
            0 => Err(Error::NoPhotos("no photo can be read any more".into())),
            _ => Ok(()),
        }
    }

    /// Writes the backbone (and, beside it, the projection head) into the run folder and says
    /// where. `made` tells in a sentence how the weights came about; `layer` lies behind the features;
    /// `half_weights` decides the backbone's precision.
    ///
    /// # Errors
    /// A number is not finite (or too large for half precision), or the disk refuses.
    pub fn save_weights(
        &self,
        folder: &Path,
        made: &str,
        layer: Option<&LinearLayer>,
    ) -> Result<PathBuf> {
        let metadata = ModelMetadata {
            made: made.to_string(),
            ..self.metadata().clone()
        };
        let path = folder.join(WEIGHTS_FILE);
        let precision = match self.config().half_weights {
            true => Precision::Half,
            false => Precision::Full,
        };
        self.save_backbone(&path, &metadata, layer, precision)?;
        // One that was not trained is of no use.
        if self.config().trains() {
            self.save_head(&folder.join(HEAD_FILE), &metadata)?;
        }
        Ok(path)
    }
}
