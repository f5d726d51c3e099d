//! Linear layers on frozen features: which photos train them and which are asked about, in which crops.

use super::Protocol;
use super::judge::Judge;
use clap::ValueEnum;
use seedling_core::Result;
use seedling_core::data::resize::Filter;
use seedling_core::data::{PhotoSource, Skipped};
use seedling_core::eval::extract::EvalView;
use seedling_core::eval::linear_probe::{self, Schedule};
use seedling_core::eval::{Features, measured};
use seedling_core::rng::{Purpose, Rng};
use serde_json::{Value, json};
use std::str::FromStr;
use std::sync::Arc;

/// Crops of each training photo, at most and at least, and of all photos about.
const CROPS: (usize, usize) = (10, 2);
const ALL_CROPS: usize = 20_000;

/// Photos of a class that train where the dataset has no training half: of Caltech-101, as is the custom.
const CALTECH_PHOTOS: usize = 30;

/// Of other datasets, the fraction of a class that trains.
const TRAIN_RATIO: f64 = 0.8;

/// Caltech-101's folder of photos that are of no class.
const NO_CLASS: &str = "BACKGROUND_Google";

/// Rates that are tried, times the schedule's.
const TRIED: [f32; 7] = [0.01, 0.033, 0.1, 0.33, 1.0, 3.3, 10.0];

/// The random stream that divides classes, and the one that holds photos back for the search.
const DIVISION: u64 = 180;

/// `--lr`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lr {
    Search,
    Fixed(f32),
}

impl FromStr for Lr {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Lr, String> {
        if text == "search" {
            return Ok(Lr::Search);
        }
        let rate = text
            .parse()
            .ok()
            .filter(|rate: &f32| rate.is_finite() && *rate > 0.0);
        rate.map(Lr::Fixed)
            .ok_or_else(|| "a positive number, or search".into())
    }
}

/// `--transfer-to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TransferTo {
    /// cifar for pictures of 32 x 32 pixels, caltech for any others
    Auto,
    /// Learning rate 1.5, a tenth from epoch 40 on; for CIFAR-10 and CIFAR-100
    Cifar,
    /// Learning rate 2; for Caltech-101, of which 30 photos a class train
    Caltech,
}

/// What a linear layer came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ProbeFigures {
    pub(super) top1: f64,
    pub(super) top5: f64,
    pub(super) per_class: f64,
    /// Of the photos it was trained on, uncropped.
    pub(super) train_top1: f64,
    pub(super) classes: usize,
    pub(super) lr: f32,
    pub(super) searched: bool,
    pub(super) epochs: usize,
    pub(super) crops: usize,
    /// Photos that trained it, and that it was asked about.
    pub(super) photos: (usize, usize),
    /// How the photos were divided.
    pub(super) division: &'static str,
}

impl ProbeFigures {
    pub(super) fn json(&self) -> Value {
        json!({
            "top1": self.top1,
            "top5": self.top5,
            "per_class": self.per_class,
            "train_top1": self.train_top1,
            "classes": self.classes,
            "lr": self.lr,
            "lr_searched": self.searched,
            "epochs": self.epochs,
            "crops": self.crops,
            "train_photos": self.photos.0,
            "test_photos": self.photos.1,
            "protocol": self.division,
        })
    }
}

/// Photos of a source.
struct Half<'a> {
    source: &'a Arc<dyn PhotoSource>,
    photos: Vec<usize>,
}

/// Trains a layer and asks it. `None`, and a word why, where there are no classes.
///
/// # Errors
/// No photo of a half can be read, or features are not finite.
pub(super) fn run(
    judge: &Judge<'_>,
    protocol: Protocol,
    skipped: &mut Vec<Skipped>,
) -> Result<Option<ProbeFigures>> {
    let classes = judge.whole.classes();
    if classes.len() < 2 {
        judge
            .console
            .note("no class folders here: a linear layer has nothing to learn");
        return Ok(None);
    }
    let transfer = protocol == Protocol::Transfer;
    let caltech = transfer && to_caltech(judge);
    let schedule = match (transfer, caltech) {
        (false, _) => Schedule::linear(),
        (true, false) => Schedule::cifar(),
        (true, true) => Schedule::caltech(),
    };
    let (train, test, division) = divided(judge, caltech);
    let name = match transfer {
        true => "transfer",
        false => "linear",
    };

    let crops = judge
        .args
        .crops
        .map(|crops| crops as usize)
        .unwrap_or_else(|| (ALL_CROPS / train.photos.len().max(1)).clamp(CROPS.1, CROPS.0));
    let (plain, scale, filter) = match transfer {
        false => (EvalView::Plain, (0.08, 1.0), Filter::Bilinear),
        true => (EvalView::PlainBicubic, (0.6, 1.0), Filter::Bicubic),
    };
    let crop = |number| EvalView::Crop {
        scale,
        filter,
        number,
        seed: judge.seed(),
    };
    let mut views = vec![plain.clone()];
    views.extend((0..crops as u64).map(crop));
    let (mut of_train, train_labels) = extract(judge, &train, &views, name, skipped)?;
    let (of_test, test_labels) = extract(judge, &test, &views[..1], "ask", skipped)?;
    let plain = of_train.remove(0);

    let learn = |features: &[Features], labels: &[u32], rates: &[f32]| {
        let bar = judge.console.bar(schedule.epochs as u64, name);
        let labels = (labels, classes.len());
        let probe = linear_probe::train(features, labels, &schedule, rates, judge.seed(), |done| {
            bar.set_position(done as u64);
            Ok(())
        });
        bar.finish_and_clear();
        probe
    };
    let lr = match judge.args.lr {
        None => schedule.lr,
        Some(Lr::Fixed(lr)) => lr,
        Some(Lr::Search) => {
            let rates = TRIED.map(|factor| factor * schedule.lr);
            let (kept, asked) = held_back(&train_labels, TRAIN_RATIO, usize::MAX, judge.seed());
            let select = |rows: &[usize]| -> Vec<u32> {
                rows.iter().map(|&row| train_labels[row]).collect()
            };
            let views: Vec<Features> = of_train.iter().map(|view| view.select(&kept)).collect();
            let probe = learn(&views, &select(&kept), &rates)?;
            let found = probe.accuracy(&plain.select(&asked), &select(&asked));
            let scored = rates.into_iter().zip(found);
            let best = scored.reduce(|best, next| match next.1.top1 > best.1.top1 {
                true => next,
                false => best,
            });
            best.map_or(schedule.lr, |(lr, _)| lr)
        }
    };
    let probe = learn(&of_train, &train_labels, &[lr])?;
    let on = |features: &Features, labels: &[u32]| probe.accuracy(features, labels)[0];
    let (on_train, on_test) = (on(&plain, &train_labels), on(&of_test[0], &test_labels));
    Ok(Some(ProbeFigures {
        top1: on_test.top1,
        top5: on_test.top5,
        per_class: on_test.per_class,
        train_top1: on_train.top1,
        classes: classes.len(),
        lr,
        searched: judge.args.lr == Some(Lr::Search),
        epochs: schedule.epochs,
        crops,
        photos: (train_labels.len(), test_labels.len()),
        division,
    }))
}

/// Whether transfer is as to Caltech-101.
fn to_caltech(judge: &Judge<'_>) -> bool {
    match judge.args.transfer_to {
        TransferTo::Cifar => false,
        TransferTo::Caltech => true,
        TransferTo::Auto => {
            let tiny = |(width, height)| width == 32 && height == 32;
            let size = match judge.whole.outline(0) {
                Some(outline) => Some((outline.width, outline.height)),
                None => judge
                    .whole
                    .load(0)
                    .ok()
                    .map(|photo| (photo.width, photo.height)),
            };
            !size.is_some_and(tiny)
        }
    }
}

/// The photos that train, those that are asked about, and how that was decided.
fn divided<'a>(judge: &Judge<'a>, caltech: bool) -> (Half<'a>, Half<'a>, &'static str) {
    if let Some((train, test)) = judge.halves {
        let all = |source: &'a Arc<dyn PhotoSource>| Half {
            source,
            photos: (0..source.len()).collect(),
        };
        return (all(train), all(test), "train-test");
    }
    let source = judge.whole;
    let no_class = source.classes().iter().position(|class| class == NO_CLASS);
    let no_class = no_class.filter(|_| caltech);
    if no_class.is_some() {
        judge
            .console
            .note(&format!("{NO_CLASS} is no class: its photos are left out"));
    }
    let photos: Vec<usize> = (0..source.len())
        .filter(|&photo| {
            source
                .label(photo)
                .is_some_and(|label| Some(label) != no_class)
        })
        .collect();
    let labels: Vec<u32> = photos
        .iter()
        .filter_map(|&photo| source.label(photo).map(|label| label as u32))
        .collect();
    let (most, division) = match caltech {
        true => (CALTECH_PHOTOS, "30 a class train"),
        false => (usize::MAX, "four fifths of a class train"),
    };
    let (kept, asked) = held_back(&labels, TRAIN_RATIO, most, judge.seed());
    let half = |rows: Vec<usize>| Half {
        source,
        photos: rows.into_iter().map(|row| photos[row]).collect(),
    };
    (half(kept), half(asked), division)
}

/// Rows that train, and the others: of every class a `ratio`, `most` at most, and one at least.
fn held_back(labels: &[u32], ratio: f64, most: usize, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut rng = Rng::new(seed, Purpose::Measure, 0, DIVISION);
    let order = rng.permutation(labels.len());
    let classes = labels
        .iter()
        .max()
        .map_or(0, |&largest| largest as usize + 1);
    let mut counts = vec![0usize; classes];
    labels.iter().for_each(|&label| counts[label as usize] += 1);
    let wanted = |count: usize| ((ratio * count as f64).round() as usize).clamp(1, most);
    let mut left: Vec<usize> = counts.into_iter().map(wanted).collect();
    let (mut kept, mut others): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
    for row in order {
        let left = &mut left[labels[row] as usize];
        match *left {
            0 => others.push(row),
            _ => {
                *left -= 1;
                kept.push(row);
            }
        }
    }
    kept.sort_unstable();
    others.sort_unstable();
    (kept, others)
}

/// Features of each of some views, and the photos' classes.
fn extract(
    judge: &Judge<'_>,
    half: &Half<'_>,
    views: &[EvalView],
    name: &str,
    skipped: &mut Vec<Skipped>,
) -> Result<(Vec<Features>, Vec<u32>)> {
    let bar = judge.console.bar(half.photos.len() as u64, name);
    let found = judge
        .extractor(half.source)
        .readable(&half.photos, views, |done| {
            bar.set_position(done as u64);
            Ok(())
        })?;
    bar.finish_and_clear();
    found.check(half.photos.len())?;
    let labels = measured::labels(&**half.source, &found.photos).unwrap_or_default();
    for photo in found.skipped {
        if !skipped.contains(&photo) {
            skipped.push(photo);
        }
    }
    Ok((found.features, labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_divided_evenly_and_the_same_way_each_time() {
        let labels: Vec<u32> = (0..100).map(|i| [0, 0, 1, 2][i % 4]).collect();
        let (kept, others) = held_back(&labels, 0.8, usize::MAX, 1);
        assert_eq!((kept.len(), others.len()), (80, 20));
        let of = |rows: &[usize], class| rows.iter().filter(|&&row| labels[row] == class).count();
        assert_eq!([0, 1, 2].map(|class| of(&kept, class)), [40, 20, 20]);
        assert_eq!(
            held_back(&labels, 0.8, usize::MAX, 1),
            (kept.clone(), others)
        );
        assert_ne!(held_back(&labels, 0.8, usize::MAX, 2).0, kept);
        let (kept, _) = held_back(&labels, 0.8, 15, 1);
        assert_eq!([0, 1, 2].map(|class| of(&kept, class)), [15, 15, 15]);
        // A class of one photo trains, and is not asked about.
        assert_eq!(held_back(&[0, 1, 1, 1], 0.5, 9, 0).1.len(), 1);
    }

    #[test]
    fn rates_are_positive_numbers_or_searched() {
        assert_eq!("search".parse(), Ok(Lr::Search));
        assert_eq!("0.5".parse(), Ok(Lr::Fixed(0.5)));
        for wrong in ["0", "-1", "nan", "inf", "serch", ""] {
            assert!(wrong.parse::<Lr>().is_err(), "{wrong}");
        }
    }
}
