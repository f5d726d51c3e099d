//! How much of photos' neighborhoods one set of features shares with another: what tells training that went
//! well from training that tore everything apart, without labels.

use super::features::Features;
use super::neighbors::{Exclude, Metric, search};
use crate::{Error, Result};

/// Nearest photos that make a neighborhood.
const NEIGHBORS: usize = 10;

/// Below so many photos neighborhoods say nothing.
pub const LEAST_PHOTOS: usize = 32;

/// The nearest others of every photo, by some features.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighborhoods(Vec<Vec<usize>>);

impl Neighborhoods {
    /// By the angle between these features. `None` below [`LEAST_PHOTOS`].
    ///
    /// # Errors
    /// [`Error::Training`] where a feature is not finite.
    pub fn new(features: &Features) -> Result<Option<Neighborhoods>> {
        match features.rows < LEAST_PHOTOS {
            true => features.check_finite().map(|()| None),
            false => Ok(Some(Neighborhoods(nearest(features)?))),
        }
    }

    /// For every photo, how many of its ten nearest are so by these features, too: 1 for all, 0 for as many as
    /// chance would leave.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there is a row for each photo, [`Error::Training`] where a feature is not finite.
    pub fn kept_by(&self, features: &Features) -> Result<Vec<f64>> {
        if features.rows != self.0.len() {
            return Err(Error::Shape {
                tensor: "features".into(),
                expected: vec![self.0.len(), features.dim],
                got: vec![features.rows, features.dim],
            });
        }
        let chance = NEIGHBORS as f64 / (features.rows - 1) as f64;
        let found = nearest(features)?;
        let pairs = self.0.iter().zip(&found);
        Ok(pairs
            .map(|(before, after)| {
                let kept = after.iter().filter(|photo| before.contains(photo)).count();
                (kept as f64 / NEIGHBORS as f64 - chance) / (1.0 - chance)
            })
            .collect())
    }
}

fn nearest(features: &Features) -> Result<Vec<Vec<usize>>> {
    let (metric, exclude) = (Metric::Cosine, Exclude::Itself);
    search(features, features, NEIGHBORS, metric, exclude, |_, near| {
        near.iter().map(|near| near.index).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use seedling_base::rng::{Purpose, Rng};

    fn features(stream: u64) -> Features {
        let mut rng = Rng::new(3, Purpose::Init, 0, stream);
        let values = (0..200 * 12).map(|_| rng.normal());
        Features::new(200, 12, values.collect()).unwrap()
    }

    #[test]
    fn neighborhoods_that_stay_and_that_are_left_to_chance() {
        let (one, other) = (features(0), features(1));
        let before = Neighborhoods::new(&one).unwrap().unwrap();
        let mean = |features: &Features| {
            let kept = before.kept_by(features).unwrap();
            kept.iter().sum::<f64>() / kept.len() as f64
        };
        assert!((mean(&one) - 1.0).abs() < 1e-12);
        assert!(mean(&other).abs() < 0.03, "{}", mean(&other));
        let between = one.values.iter().zip(&other.values);
        let between = between.map(|(a, b)| a + 0.5 * b).collect();
        let between = mean(&Features::new(200, 12, between).unwrap());
        assert!(between > 0.2 && between < 0.9, "{between}");
    }

    #[test]
    fn few_and_broken_photos() {
        let few = features(0).select(&(0..31).collect::<Vec<_>>());
        assert_eq!(Neighborhoods::new(&few).unwrap(), None);
        let broken = Features::new(40, 1, vec![f32::NAN; 40]).unwrap();
        assert!(Neighborhoods::new(&broken).is_err());
        let known = Neighborhoods::new(&features(0)).unwrap().unwrap();
        assert!(known.kept_by(&few).is_err() && known.kept_by(&broken).is_err());
    }
}
