//! All measurements of a set of photos at once, as runs log them and `eval --json` prints them.

use super::collapse::{Collapse, collapse};
use super::features::Features;
use super::geometry::{self, Geometry};
use super::lidar::lidar;
use super::neighbors::Metric;
use super::panel::{Panel, panel};
use super::retrieval::{Knn, instance_discrimination, knn_leave_one_out};
use seedling_base::error::Result;
use serde::{Deserialize, Serialize};

/// What features say about a set of photos.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Label-free figures, and alignment within classes where classes are known.
    pub geometry: Geometry,
    /// kNN accuracies where classes are known.
    pub knn: Option<Knn>,
    /// What an app asks of features, where classes are known.
    pub panel: Option<Panel>,
    /// How far the features are from having collapsed; `None` below two photos.
    pub collapse: Option<Collapse>,
}

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Features of the plain photos.
    pub plain: &'a Features,
    /// Features of two views of each photo, in the same order; without them alignment,
    /// instance discrimination and LiDAR stay `None`.
    pub views: Option<(&'a Features, &'a Features)>,
    /// The class of each photo where known.
    pub labels: Option<&'a [u32]>,
}

/// Measures `subject`; kNN and panel by leave-one-out. `seed` draws the sets of the sampled uniformity and the
/// panel's labeled photos, so measurements that are to be compared take the same one.
///
/// # Errors
/// [`crate::Error::Shape`] where views or labels don't match the photos,
/// [`crate::Error::Training`] where a feature is not finite.
pub fn measure(subject: &Subject<'_>, metric: Metric, seed: u64) -> Result<Measurement> {
    let plain = subject.plain;
    plain.check_finite()?;
    let mut geometry = Geometry {
        uniformity: geometry::uniformity(plain),
        uniformity_sampled: geometry::uniformity_sampled(plain, seed),
        ..Geometry::default()
    };
    if let Some((first, second)) = subject.views {
        geometry.alignment = geometry::alignment(first, second)?;
        geometry.instance_discrimination =
            instance_discrimination(plain, &[first, second], metric)?;
        geometry.lidar = lidar(&[plain, first, second])?;
    }
    let (mut knn, mut found) = (None, None);
    if let Some(labels) = subject.labels {
        geometry.intra_class_alignment = geometry::intra_class_alignment(plain, labels)?;
        knn = knn_leave_one_out(plain, labels, metric)?;
        found = (plain.rows > 1)
            .then(|| panel(plain, labels, seed))
            .transpose()?;
    }
    Ok(Measurement {
        geometry,
        knn,
        panel: found,
        collapse: collapse(plain),
    })
}
