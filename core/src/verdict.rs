//! Whether what was trained is kept, asked without labels: a guard against accidents.
//!
//! No figure that needs no labels tells better weights from worse ones by a few points (docs/results.md): what
//! training gains on average is known from albums with labels, and kept unless something went wrong. That is
//! where features are not finite, where they have collapsed, and where neighborhoods are torn apart: the
//! initial weights sort the photos into kinds ([`Kinds`]), and far fewer of a photo's neighbors name its kind
//! than did before, among all photos or among those that were held out.

use crate::Result;
use crate::eval::Features;
use crate::eval::collapse_warning;
use crate::eval::kinds::{Kinds, LEAST_PHOTOS};
use serde::{Deserialize, Serialize};

/// Points in percent that photos found among their kind may fall by. Runs that gained by every figure of the
/// panel fell by up to 4.2 where half of what training changed was kept; sabotaged ones by 4 to 28.
pub const MARGIN: f64 = 6.0;

/// What was decided, and from what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// Share of what training has changed that the result keeps; 0 are the initial weights.
    pub share: f64,
    /// Why nothing was trained, where nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untrained: Option<Untrained>,
    /// Whether the album's statistics lie behind the features.
    pub closed_form: bool,
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

/// Why nothing was trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Untrained {
    /// The album is smaller than training helps.
    FewPhotos {
        /// From how many photos on it does.
        train_from: usize,
    },
    /// Nobody asked for a step.
    Asked,
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

    /// The largest share with which no accident has happened.
    pub fn decide(self) -> Verdict {
        let mut verdict = self.verdict;
        let tried = verdict.tried.iter().zip(&verdict.held_out_tried);
        let sound = tried.filter(|((_, found), (_, held))| {
            let holds = |found: Option<f64>, initial: Option<f64>| match (found, initial) {
                (Some(found), Some(initial)) => found >= initial - MARGIN,
                _ => false,
            };
            holds(*found, verdict.initial)
                && (verdict.held_out == 0 || holds(*held, verdict.held_out_initial))
        });
        let shares = sound.map(|((share, _), _)| *share);
        verdict.share = shares.fold(0.0, f64::max);
        verdict
    }
}

impl Verdict {
    /// Whether the result is something else than the initial weights.
    pub fn accepted(&self) -> bool {
        self.share > 0.0
    }

    /// For the person whose photos they are: what was done.
    pub fn sentence(&self) -> String {
        let closed_form = match (self.closed_form, self.accepted()) {
            (false, _) => "",
            (true, true) => " The album's statistics are fitted to them in closed form.",
            (true, false) => " The album's statistics are fitted to these in closed form.",
        };
        self.trained() + closed_form
    }

    fn trained(&self) -> String {
        match self.untrained {
            Some(Untrained::FewPhotos { train_from }) => {
                return format!(
                    "The initial weights stay: from fewer than {train_from} photos training teaches a \
                     network little that other photos show."
                );
            }
            Some(Untrained::Asked) => {
                return "The initial weights stay: no step of training was asked for.".into();
            }
            None => {}
        }
        let Some(initial) = self.initial else {
            return format!(
                "The initial weights stay: {} photos are too few to tell whether training went well \
                 ({LEAST_PHOTOS} are needed).",
                self.photos
            );
        };
        let of = |share: f64| {
            let tried = self.tried.iter().find(|(tried, _)| *tried == share);
            tried.and_then(|(_, found)| *found)
        };
        if let Some(found) = of(self.share) {
            return format!(
                "What was trained is kept, {:.0} % of it: {found:.1} % of {} photos lie among their kind, \
                 {initial:.1} % before.",
                100.0 * self.share,
                self.photos
            );
        }
        let found = self.tried.iter().filter_map(|(_, found)| *found);
        match found.reduce(f64::max) {
            None => "The initial weights stay: after training photos can no longer be told apart."
                .into(),
            Some(found) => format!(
                "The initial weights stay: training has torn apart what belongs together. {found:.1} % of {} \
                 photos lie among their kind, {initial:.1} % before{}.",
                self.photos,
                match self.held_out {
                    0 => String::new(),
                    n => format!(", or too few of the {n} that were not trained on"),
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
    fn what_was_trained_is_kept_unless_neighbourhoods_are_torn() {
        let verdict = judged(&[(0.25, gathered(0.0)), (0.5, gathered(0.3))]);
        assert_eq!(verdict.share, 0.5);
        let text = verdict.sentence();
        assert!(
            text.contains("is kept, 50 %") && text.contains("72 photos"),
            "{text}"
        );
        // A little worse is chance; the larger share has torn photos apart, the smaller has not.
        let verdict = judged(&[(0.25, album(2.9)), (0.5, album(1.0))]);
        assert_eq!(verdict.share, 0.25, "{verdict:?}");
        let verdict = judged(&[(0.25, album(1.0)), (0.5, album(0.5))]);
        assert!(!verdict.accepted());
        assert!(verdict.sentence().contains("torn apart"));
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
            text.contains("fewer than 900") && text.contains("closed form"),
            "{text}"
        );
        verdict.untrained = Some(Untrained::Asked);
        verdict.closed_form = false;
        assert!(!verdict.sentence().contains("closed form"));
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
            sentence.contains("of the 18 that were not trained on"),
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
