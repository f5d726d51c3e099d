//! Kinds: the groups into which initial weights sort photos, and how well other features keep them.
//!
//! Adapting without labels draws views of one photo together, and with them photos apart that belong
//! together. Figures about views or spread call that progress. Whether a search got better shows
//! where the initial weights' own groups are found again by a photo's neighbours, more surely than
//! before: their borders are where most mistakes lie.

use super::clusters::k_means;
use super::features::Features;
use super::neighbours::Metric;
use super::retrieval::right_leave_one_out_each;
use crate::Result;
use crate::rng::{Purpose, Rng};

/// Below so many photos groups say nothing.
pub const LEAST_PHOTOS: usize = 32;

/// Ways to sort the photos that are averaged over: each draws its borders elsewhere.
const WAYS: u64 = 10;
/// The first of k-means' random streams; those before belong to measurements and report.
const STREAM: u64 = 5;

/// A group for each photo, in several ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kinds {
    /// Number of groups.
    pub count: usize,
    /// For each way to sort them, the group of each row.
    pub labels: Vec<Vec<u32>>,
}

impl Kinds {
    /// Sorts the directions of `features` into sqrt(rows / 2) groups ([`k_means`]). `None` below [`LEAST_PHOTOS`].
    ///
    /// # Errors
    /// [`crate::Error::Training`] where a feature is not finite.
    pub fn of(features: &Features, seed: u64) -> Result<Option<Kinds>> {
        features.check_finite()?;
        if features.rows < LEAST_PHOTOS || features.dim == 0 {
            return Ok(None);
        }
        let rows = features.normalised();
        let count = (rows.rows as f64 / 2.0).sqrt() as usize;
        let labels = (0..WAYS)
            .map(|way| {
                let mut rng = Rng::new(seed, Purpose::Measure, 0, STREAM + way);
                k_means(&rows, count, &mut rng)
            })
            .collect();
        Ok(Some(Kinds { count, labels }))
    }

    /// How often the nearest other photos name each photo's group, from 0 to 1: at the k that is best
    /// for all (best-NN), by the angle between features, averaged over the ways to sort them. Empty
    /// where there are no two rows.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] unless there is a row for each photo,
    /// [`crate::Error::Training`] where a feature is not finite.
    pub fn kept_by(&self, features: &Features) -> Result<Vec<f64>> {
        let ways: Vec<&[u32]> = self.labels.iter().map(Vec::as_slice).collect();
        let found = right_leave_one_out_each(features, &ways, Metric::Cosine)?;
        let photos = found.first().map_or(0, Vec::len);
        let share = |photo: usize| {
            let right = found.iter().filter(|way| way[photo]).count();
            right as f64 / ways.len() as f64
        };
        Ok((0..photos).map(share).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `kinds` groups of `each` directions, `noise` wide.
    fn album(kinds: usize, each: usize, noise: f32) -> Features {
        let dim = 24;
        let mut rng = Rng::new(3, Purpose::Init, 0, 0);
        let mut values = Vec::new();
        for i in 0..kinds * each {
            values.extend((0..dim).map(|j| {
                let here = if j == i / each { 3.0 } else { 0.0 };
                here + noise * rng.normal()
            }));
        }
        Features::new(kinds * each, dim, values).unwrap()
    }

    #[test]
    fn groups_that_are_there_are_found() {
        // sqrt(72 / 2) = 6 groups.
        let photos = album(6, 12, 0.1);
        let kinds = Kinds::of(&photos, 0).unwrap().unwrap();
        assert_eq!(kinds.count, 6);
        // A beginning may have two rows of a group and none of another; not all of them do.
        let exact = |labels: &&Vec<u32>| {
            let mut firsts: Vec<u32> = labels.iter().step_by(12).copied().collect();
            firsts.sort_unstable();
            let whole = |group: &[u32]| group.iter().all(|label| *label == group[0]);
            labels.chunks(12).all(whole) && firsts == [0, 1, 2, 3, 4, 5]
        };
        assert!(kinds.labels.iter().filter(exact).count() >= 6, "{kinds:?}");
        assert_eq!(kinds, Kinds::of(&photos, 0).unwrap().unwrap());
        let mean = |features: &Features| {
            let found = kinds.kept_by(features).unwrap();
            found.iter().sum::<f64>() / found.len() as f64
        };
        assert!(mean(&photos) > 0.9);
        // Features that know the groups less well keep fewer.
        let blurred = mean(&album(6, 12, 1.0));
        let lost = mean(&album(6, 12, 20.0));
        assert!(blurred > 0.4 && blurred < 1.0, "{blurred}");
        assert!(lost < blurred, "{lost} {blurred}");
        assert!(kinds.kept_by(&album(6, 11, 0.1)).is_err());
    }

    #[test]
    fn few_equal_and_broken_rows() {
        assert_eq!(Kinds::of(&album(3, 10, 0.1), 0).unwrap(), None);
        let alike = Features::new(40, 3, vec![1.0; 120]).unwrap();
        let kinds = Kinds::of(&alike, 0).unwrap().unwrap();
        assert!(kinds.labels.iter().all(|labels| *labels == [0; 40]));
        let zeros = Features::new(40, 3, vec![0.0; 120]).unwrap();
        assert!(Kinds::of(&zeros, 0).unwrap().is_some());
        let broken = Features::new(40, 3, vec![f32::NAN; 120]).unwrap();
        assert!(Kinds::of(&broken, 0).is_err());
        assert!(kinds.kept_by(&broken).is_err());
    }
}
