//! Whether what was trained serves better than what was there before, asked without labels.
//!
//! The initial weights sort the photos into kinds ([`Kinds`]); weights are better if a photo's
//! neighbours name its kind clearly more often, and if that holds for the photos that were held out,
//! which nothing was trained on. These alone are too few to tell a rise from chance, all together have
//! seen the training: so both are asked. Of the figures compared in the README this one gained
//! most and lost least. The initial weights stay unless others are better.

use crate::Result;
use crate::eval::Features;
use crate::eval::collapse_warning;
use crate::eval::kinds::{Kinds, LEAST_PHOTOS};
use serde::{Deserialize, Serialize};

/// Points in percent by which others have to be better on all photos: less was seen to lose. On those
/// held out they have to be better at all.
pub const MARGIN: f64 = 1.0;

/// What was decided, and from what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// Share of what training has changed that the result keeps; 0 are the initial weights.
    pub share: f64,
    /// Photos that were looked at.
    pub photos: usize,
    /// Groups that they were sorted into; 0 where there were too few photos.
    pub kinds: usize,
    /// Percent of photos whose neighbours name their kind, with the initial weights.
    pub initial: Option<f64>,
    /// The same with a share of what training has changed: (share, percent). `None` where the
    /// features were not finite, or all alike.
    pub tried: Vec<(f64, Option<f64>)>,
    /// Photos among them that were held out from training; 0 where an album is too small for that.
    pub held_out: usize,
    /// As `initial`, of the photos held out.
    pub held_out_initial: Option<f64>,
    /// As `tried`, of the photos held out.
    pub held_out_tried: Vec<(f64, Option<f64>)>,
}

/// A decision on its way: the initial weights' features first, then those of every share.
#[derive(Debug)]
pub struct Jury {
    kinds: Option<Kinds>,
    /// Rows of the photos that were held out.
    held: Vec<usize>,
    verdict: Verdict,
}

impl Jury {
    /// With the features of the initial weights. `held` are the rows of the photos that were held out.
    ///
    /// # Errors
    /// The features are not finite.
    pub fn new(initial: &Features, held: Vec<usize>, seed: u64) -> Result<Jury> {
        let kinds = Kinds::of(initial, seed)?;
        let found = match &kinds {
            Some(kinds) => kinds.kept_by(initial)?,
            None => Vec::new(),
        };
        Ok(Jury {
            verdict: Verdict {
                photos: initial.rows,
                held_out: held.len(),
                kinds: kinds.as_ref().map_or(0, |kinds| kinds.count),
                initial: percent(found.iter()),
                held_out_initial: percent(held.iter().filter_map(|&row| found.get(row))),
                ..Verdict::default()
            },
            kinds,
            held,
        })
    }

    /// Whether there is anything to decide.
    pub fn can_judge(&self) -> bool {
        self.kinds.is_some()
    }

    /// Hears the features that `share` of what training has changed gives, of the same photos.
    ///
    /// # Errors
    /// They are of other photos.
    pub fn hear(&mut self, share: f64, features: &Features) -> Result<()> {
        let Some(kinds) = &self.kinds else {
            return Ok(());
        };
        let usable = features.check_finite().is_ok() && collapse_warning(features).is_none();
        let found = match usable {
            true => kinds.kept_by(features)?,
            false => Vec::new(),
        };
        let held = self.held.iter().filter_map(|&row| found.get(row));
        let verdict = &mut self.verdict;
        verdict.tried.push((share, percent(found.iter())));
        verdict.held_out_tried.push((share, percent(held)));
        Ok(())
    }

    /// The share that keeps kinds best, if it does so clearly better than the initial weights; the
    /// smaller of two that are equally good.
    pub fn decide(self) -> Verdict {
        let mut verdict = self.verdict;
        let Some(initial) = verdict.initial else {
            return verdict;
        };
        let mut best = None;
        for (&(share, found), &(_, held)) in verdict.tried.iter().zip(&verdict.held_out_tried) {
            let holds = verdict.held_out == 0 || held > verdict.held_out_initial;
            let clearly = found.filter(|found| holds && *found >= initial + MARGIN);
            if clearly > best {
                (best, verdict.share) = (clearly, share);
            }
        }
        verdict
    }
}

impl Verdict {
    /// Whether the result is something else than the initial weights.
    pub fn accepted(&self) -> bool {
        self.share > 0.0
    }

    /// What was looked at, and what a share gave for the photos held out.
    fn looked_at(&self, share: f64) -> String {
        let tried = self
            .held_out_tried
            .iter()
            .find(|(tried, _)| *tried == share);
        let (found, initial) = (tried.and_then(|(_, found)| *found), self.held_out_initial);
        match (found, initial) {
            (Some(found), Some(initial)) => format!(
                "{} photos, {} kinds; of {} that were not trained on {found:.1} and {initial:.1} %",
                self.photos, self.kinds, self.held_out
            ),
            _ => format!("{} photos, {} kinds", self.photos, self.kinds),
        }
    }

    /// For the person whose photos they are.
    pub fn sentence(&self) -> String {
        let Some(initial) = self.initial else {
            return format!(
                "The initial weights stay: {} photos are too few to tell whether others are \
                 better ({LEAST_PHOTOS} are needed).",
                self.photos
            );
        };
        let best = self
            .tried
            .iter()
            .filter(|(share, _)| !self.accepted() || *share == self.share)
            .filter_map(|(share, found)| found.map(|found| (*share, found)))
            .reduce(|best, next| if next.1 > best.1 { next } else { best });
        let Some((share, found)) = best else {
            return "The initial weights stay: with the adapted ones photos can no longer be told apart."
                .into();
        };
        let looked_at = self.looked_at(share);
        match self.accepted() {
            true => format!(
                "The adapted weights are kept: they find {found:.1} % of the photos among their kind, \
                 the initial ones {initial:.1} % ({looked_at})."
            ),
            false => format!(
                "The initial weights stay: they find {initial:.1} % of the photos among their kind, the \
                 adapted ones {found:.1} % ({looked_at})."
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
    use crate::rng::{Purpose, Rng};

    /// Six kinds of 12 photos; `far` holds them apart.
    fn album(far: f32) -> Features {
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
        let mut jury = Jury::new(&album(3.0), Vec::new(), 0).unwrap();
        assert!(jury.can_judge());
        for (share, features) in tried {
            jury.hear(*share, features).unwrap();
        }
        jury.decide()
    }

    /// The album with every photo moved by `t` towards the mean of its group, in every way to sort.
    fn gathered(t: f32) -> Features {
        let (before, mut photos) = (album(3.0), album(3.0));
        for labels in Kinds::of(&before, 0).unwrap().unwrap().labels {
            for (i, group) in labels.iter().enumerate() {
                let members: Vec<usize> = (0..72).filter(|j| labels[*j] == *group).collect();
                let mean = before.select(&members).mean();
                let row = &mut photos.values[i * 16..(i + 1) * 16];
                row.iter_mut()
                    .zip(mean)
                    .for_each(|(x, m)| *x += t * (m as f32 - *x));
            }
        }
        photos
    }

    #[test]
    fn better_weights_are_kept_and_others_are_not() {
        let verdict = judged(&[(0.25, gathered(0.0)), (0.5, gathered(0.3))]);
        assert_eq!(verdict.share, 0.5);
        assert!(verdict.initial < verdict.tried[1].1);
        let text = verdict.sentence();
        assert!(
            text.contains("are kept") && text.contains("72 photos"),
            "{text}"
        );

        let verdict = judged(&[(0.25, album(2.0)), (0.5, album(1.0))]);
        assert!(!verdict.accepted());
        assert!(verdict.sentence().contains("initial weights stay"));
        // As good is not better, and of two equally good ones the smaller change is kept.
        assert_eq!(judged(&[(0.5, album(3.0))]).share, 0.0);
        assert_eq!(
            judged(&[(0.25, gathered(0.3)), (0.5, gathered(0.3))]).share,
            0.25
        );
    }

    #[test]
    fn sabotaged_weights_are_not_kept() {
        let alike = Features::new(72, 16, vec![1.0; 72 * 16]).unwrap();
        let broken = Features::new(72, 16, vec![f32::NAN; 72 * 16]).unwrap();
        let verdict = judged(&[(0.25, alike), (0.5, broken)]);
        assert_eq!(verdict.tried, [(0.25, None), (0.5, None)]);
        assert!(verdict.sentence().contains("told apart"));
        let mut jury = Jury::new(&album(3.0), Vec::new(), 0).unwrap();
        assert!(jury.hear(0.5, &album(3.0).select(&[0, 1])).is_err());
    }

    #[test]
    fn what_only_serves_the_photos_trained_on_is_not_kept() {
        let held: Vec<usize> = (0..72).filter(|i| i % 4 == 0).collect();
        let mut photos = gathered(0.5);
        let (worse, dim) = (album(0.5), 16);
        for &i in &held {
            let row = i * dim..(i + 1) * dim;
            photos.values[row.clone()].copy_from_slice(&worse.values[row]);
        }
        let judged = |held: Vec<usize>| {
            let mut jury = Jury::new(&album(3.0), held, 0).unwrap();
            jury.hear(0.5, &photos).unwrap();
            jury.decide()
        };
        let verdict = judged(held);
        assert!(!verdict.accepted(), "{verdict:?}");
        assert!(verdict.held_out_tried[0].1 < verdict.held_out_initial);
        let sentence = verdict.sentence();
        assert!(
            sentence.contains("of 18 that were not trained on"),
            "{sentence}"
        );
        // The others alone would have been enough.
        let others = judged((0..72).filter(|i| i % 4 != 0).collect());
        assert!(others.held_out_tried[0].1 > others.held_out_initial);
    }

    #[test]
    fn few_photos_decide_nothing() {
        let few = album(3.0).select(&(0..20).collect::<Vec<_>>());
        let mut jury = Jury::new(&few, Vec::new(), 0).unwrap();
        assert!(!jury.can_judge());
        jury.hear(0.5, &few).unwrap();
        let verdict = jury.decide();
        assert!(!verdict.accepted());
        assert!(verdict.sentence().contains("20 photos are too few"));
    }
}
