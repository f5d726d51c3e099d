//! Whether the trained weights are kept, decided without labels: a guard against accidents.
//!
//! No figure that needs no labels tells better weights from worse ones by a few points (docs/results.md): what
//! training gains on average is known from datasets with labels, and kept unless something went wrong. That is
//! where features are not finite, where they have collapsed, and where neighborhoods are torn apart: too few of
//! a photo's ten nearest by the initial weights are still among its nearest, of all photos or of those that
//! were held out.

use crate::Result;
use crate::eval::Features;
use crate::eval::collapse_warning;
use crate::eval::neighborhood::{LEAST_PHOTOS, Neighborhoods};
use serde::{Deserialize, Serialize};

/// Percent of a photo's neighbors, chance taken away, that have to stay. Runs that gained kept 53 and more where
/// half of what training changed was kept, and 39 and more of all of it; sabotaged ones 8 to 39.
pub const LEAST_KEPT: f64 = 40.0;

/// What was decided, and from what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// Interpolation weight of the trained weights; 0 are the initial weights.
    pub interpolation: f64,
    /// Why nothing was trained, where nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untrained: Option<Untrained>,
    /// Whether the dataset's statistics lie behind the features.
    pub closed_form: bool,
    /// Photos that were processed.
    pub photos: usize,
    /// By interpolation weight: (weight, percent of neighbors that stay, chance taken away).
    /// `None` where the features were not finite, or all alike, or the photos too few to ask.
    pub tried: Vec<(f64, Option<f64>)>,
    /// Photos among them that were held out from training; 0 where a dataset is too small for that.
    pub held_out: usize,
    /// As `tried`, of the photos held out.
    pub held_out_tried: Vec<(f64, Option<f64>)>,
}

/// Why nothing was trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Untrained {
    /// The dataset is smaller than training helps.
    FewPhotos {
        /// From how many photos on it does.
        train_from: usize,
    },
    /// Nobody asked for a step.
    NoSteps,
}

/// A decision on its way: the initial weights' features first, then those of every interpolation weight.
#[derive(Debug)]
pub struct WeightSelector {
    initial: Option<Neighborhoods>,
    /// Rows of the photos that were held out.
    held: Vec<usize>,
    verdict: Verdict,
}

impl WeightSelector {
    /// With the features of the initial weights. `held` are the rows of the photos that were held out.
    ///
    /// # Errors
    /// The features are not finite.
    pub fn new(initial: &Features, held: Vec<usize>) -> Result<WeightSelector> {
        Ok(WeightSelector {
            verdict: Verdict {
                photos: initial.rows,
                held_out: held.len(),
                ..Verdict::default()
            },
            initial: Neighborhoods::new(initial)?,
            held,
        })
    }

    /// Whether there is anything to decide.
    pub fn can_decide(&self) -> bool {
        self.initial.is_some()
    }

    /// Adds a candidate: features of the same photos, by weights interpolated by `interpolation`.
    ///
    /// # Errors
    /// They are of other photos.
    pub fn add(&mut self, interpolation: f64, features: &Features) -> Result<()> {
        let Some(initial) = &self.initial else {
            return Ok(());
        };
        let usable = features.check_finite().is_ok() && collapse_warning(features).is_none();
        let found = match usable {
            true => initial.kept_by(features)?,
            false => Vec::new(),
        };
        let held = self.held.iter().filter_map(|&row| found.get(row));
        let verdict = &mut self.verdict;
        verdict.tried.push((interpolation, percent(found.iter())));
        verdict.held_out_tried.push((interpolation, percent(held)));
        Ok(())
    }

    /// The largest weight with which no accident has happened.
    pub fn decide(self) -> Verdict {
        let mut verdict = self.verdict;
        let tried = verdict.tried.iter().zip(&verdict.held_out_tried);
        let sound = tried.filter(|((_, found), (_, held))| {
            let holds = |kept: &Option<f64>| kept.is_some_and(|kept| kept >= LEAST_KEPT);
            holds(found) && (verdict.held_out == 0 || holds(held))
        });
        let weights = sound.map(|((interpolation, _), _)| *interpolation);
        verdict.interpolation = weights.fold(0.0, f64::max);
        verdict
    }
}

impl Verdict {
    /// Whether the result is something else than the initial weights.
    pub fn accepted(&self) -> bool {
        self.interpolation > 0.0
    }

    /// For the person whose photos they are: what was done.
    pub fn sentence(&self) -> String {
        let closed_form = match self.closed_form {
            false => "",
            true => " A linear layer is fitted to their features.",
        };
        self.trained() + closed_form
    }

    fn trained(&self) -> String {
        match self.untrained {
            Some(Untrained::FewPhotos { train_from }) => {
                return format!(
                    "The initial weights stay: training on fewer than {train_from} photos hardly improves \
                     features of other photos."
                );
            }
            Some(Untrained::NoSteps) => {
                return "The initial weights stay: no step of training was asked for.".into();
            }
            None => {}
        }
        if self.tried.is_empty() {
            return format!(
                "The initial weights stay: {} photos are too few to tell whether training went well \
                 ({LEAST_PHOTOS} are needed).",
                self.photos
            );
        }
        let of = |interpolation: f64| {
            let tried = self.tried.iter().find(|(tried, _)| *tried == interpolation);
            tried.and_then(|(_, found)| *found)
        };
        if let Some(found) = of(self.interpolation) {
            return format!(
                "The trained weights are kept, interpolated by {:.2}: of the nearest neighbors of {} photos {found:.0} % stay.",
                self.interpolation, self.photos
            );
        }
        let found = self.tried.iter().filter_map(|(_, found)| *found);
        match found.reduce(f64::max) {
            None => "The initial weights stay: after training photos can no longer be told apart."
                .into(),
            Some(found) => format!(
                "The initial weights stay: training has torn neighbors apart. Of the nearest neighbors of {} \
                 photos {found:.0} % stay{}.",
                self.photos,
                match self.held_out {
                    0 => String::new(),
                    n => format!(", or fewer for the {n} that were held out"),
                }
            ),
        }
    }
}

/// The mean, in percent.
fn percent<'a>(found: impl Iterator<Item = &'a f64>) -> Option<f64> {
    let (sum, n) = found.fold((0.0, 0), |(sum, n), x| (sum + x, n + 1));
    (n > 0).then(|| 100.0 * sum / f64::from(n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use seedling_base::rng::{Purpose, Rng};

    /// Six clusters of 12 photos; `far` holds them apart.
    fn dataset(far: f32) -> Features {
        let mut rng = Rng::new(1, Purpose::Init, 0, 0);
        let values = (0..72 * 16)
            .map(|i| {
                let here = if i % 16 == i / (16 * 12) { far } else { 0.0 };
                here + rng.normal()
            })
            .collect();
        Features::new(72, 16, values).unwrap()
    }

    fn judged(tried: &[(f64, Features)]) -> Verdict {
        let mut selector = WeightSelector::new(&dataset(3.0), Vec::new()).unwrap();
        assert!(selector.can_decide());
        for (interpolation, features) in tried {
            selector.add(*interpolation, features).unwrap();
        }
        selector.decide()
    }

    /// The dataset with `noise` of its own on every number.
    fn moved(noise: f32) -> Features {
        let mut photos = dataset(3.0);
        let mut rng = Rng::new(1, Purpose::Init, 0, 9);
        photos
            .values
            .iter_mut()
            .for_each(|x| *x += noise * rng.normal());
        photos
    }

    #[test]
    fn what_was_trained_is_kept_unless_neighborhoods_are_torn() {
        let verdict = judged(&[(0.25, moved(0.1)), (0.5, moved(0.2))]);
        assert_eq!(verdict.interpolation, 0.5, "{verdict:?}");
        let text = verdict.sentence();
        assert!(
            text.contains("are kept, interpolated by 0.50") && text.contains("72 photos"),
            "{text}"
        );
        // The larger weight has torn photos apart, the smaller has not.
        let verdict = judged(&[(0.25, moved(0.2)), (0.5, moved(5.0))]);
        assert_eq!(verdict.interpolation, 0.25, "{verdict:?}");
        let verdict = judged(&[(0.25, moved(5.0)), (0.5, moved(9.0))]);
        assert!(!verdict.accepted());
        assert!(verdict.sentence().contains("torn neighbors apart"));
    }

    #[test]
    fn sentences_say_what_was_done() {
        let mut verdict = Verdict {
            untrained: Some(Untrained::FewPhotos { train_from: 900 }),
            closed_form: true,
            ..Verdict::default()
        };
        let text = verdict.sentence();
        assert!(
            text.contains("fewer than 900") && text.contains("linear layer"),
            "{text}"
        );
        verdict.untrained = Some(Untrained::NoSteps);
        verdict.closed_form = false;
        assert!(!verdict.sentence().contains("linear layer"));
        let json = serde_json::to_string(&verdict).unwrap();
        assert_eq!(serde_json::from_str::<Verdict>(&json).unwrap(), verdict);
    }

    #[test]
    fn sabotaged_weights_are_not_kept() {
        let alike = Features::new(72, 16, vec![1.0; 72 * 16]).unwrap();
        let broken = Features::new(72, 16, vec![f32::NAN; 72 * 16]).unwrap();
        let verdict = judged(&[(0.25, alike), (0.5, broken)]);
        assert_eq!(verdict.tried, [(0.25, None), (0.5, None)]);
        assert!(verdict.sentence().contains("told apart"));
        let mut selector = WeightSelector::new(&dataset(3.0), Vec::new()).unwrap();
        assert!(selector.add(0.5, &dataset(3.0).select(&[0, 1])).is_err());
    }

    #[test]
    fn what_only_serves_the_photos_trained_on_is_not_kept() {
        let held: Vec<usize> = (0..72).filter(|i| i % 4 == 0).collect();
        let mut photos = moved(0.1);
        let (worse, dim) = (moved(9.0), 16);
        for &i in &held {
            let row = i * dim..(i + 1) * dim;
            photos.values[row.clone()].copy_from_slice(&worse.values[row]);
        }
        let judged = |held: Vec<usize>| {
            let mut selector = WeightSelector::new(&dataset(3.0), held).unwrap();
            selector.add(0.5, &photos).unwrap();
            selector.decide()
        };
        let verdict = judged(held);
        assert!(!verdict.accepted(), "{verdict:?}");
        assert!(verdict.held_out_tried[0].1 < verdict.tried[0].1);
        let sentence = verdict.sentence();
        assert!(sentence.contains("the 18 that were held out"), "{sentence}");
        // All others alone would have been enough.
        assert!(judged(Vec::new()).accepted());
    }

    #[test]
    fn few_photos_decide_nothing() {
        let few = dataset(3.0).select(&(0..20).collect::<Vec<_>>());
        let mut selector = WeightSelector::new(&few, Vec::new()).unwrap();
        assert!(!selector.can_decide());
        selector.add(0.5, &few).unwrap();
        let verdict = selector.decide();
        assert!(!verdict.accepted());
        assert!(verdict.sentence().contains("20 photos are too few"));
    }
}
