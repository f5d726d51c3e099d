//! What a run did, in words: the sentence at the top of the report and its table.

use crate::chart::{minus, significant, thousands};
use seedling_core::records::{MeasureRecord, Record, RunRecord, StepRecord, VerdictRecord, When};

/// A run's records, sorted by kind.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Every step logged.
    pub steps: Vec<StepRecord>,
    /// Every measurement.
    pub measures: Vec<MeasureRecord>,
    /// Which weights were kept, where that was asked.
    pub judged: Option<VerdictRecord>,
    /// Facts about the whole.
    pub info: RunRecord,
}

/// How the features fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trend {
    /// They serve better than before.
    Better,
    /// No difference that a measurement can tell from chance.
    Same,
    /// The initial weights were kept.
    Unchanged,
    /// They serve worse.
    Worse,
    /// Nothing was measured before and after.
    Unknown,
}

/// One line of the before/after table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What is measured.
    pub name: &'static str,
    /// What it means, in a sentence.
    pub meaning: &'static str,
    /// Figure with the initial weights.
    pub before: Option<f64>,
    /// Figure with the final weights.
    pub after: Option<f64>,
    /// Larger is better; where nothing is, `None`.
    pub larger_is_better: Option<bool>,
    /// In percent.
    pub percent: bool,
}

impl Row {
    /// A figure as the table shows it.
    pub fn show(&self, value: Option<f64>) -> String {
        match value {
            None => "\u{2013}".into(),
            Some(v) if self.percent => format!("{v:.1} %"),
            Some(v) => minus(format!("{v:.3}")),
        }
    }

    /// The change as the table shows it, with its sign.
    pub fn change(&self) -> Option<(String, Trend)> {
        let change = self.after? - self.before?;
        let decimals = if self.percent { 1 } else { 3 };
        let text = minus(format!("{change:+.decimals$}"));
        let shown_as_zero = text.chars().all(|c| !c.is_ascii_digit() || c == '0');
        let verdict = match self.larger_is_better {
            _ if shown_as_zero => Trend::Same,
            None => Trend::Unknown,
            Some(larger) if (change > 0.0) == larger => Trend::Better,
            Some(_) => Trend::Worse,
        };
        let text = if shown_as_zero {
            "\u{b1}0".into()
        } else {
            text
        };
        Some((text, verdict))
    }
}

impl Run {
    /// Sorts `records`.
    pub fn new(records: Vec<Record>) -> Run {
        let mut run = Run::default();
        for record in records {
            match record {
                Record::Step(r) => run.steps.push(r),
                Record::Measure(r) => run.measures.push(*r),
                Record::Verdict(r) => run.judged = Some(r),
                Record::Run(r) => run.info = r,
            }
        }
        run
    }

    /// The measurement of the initial weights.
    pub fn before(&self) -> Option<&MeasureRecord> {
        self.measures.iter().find(|m| m.when == When::Before)
    }

    /// The measurement of the final weights, or in an unfinished run the last one taken.
    pub fn after(&self) -> Option<&MeasureRecord> {
        let last = self.measures.iter().rev().find(|m| m.when == When::After);
        last.or_else(|| self.measures.iter().rev().find(|m| m.when == When::During))
    }

    /// The last warning of a collapse, where there was one.
    pub fn collapse(&self) -> Option<&str> {
        self.after()?.collapse.as_deref()
    }

    /// The table; figures that neither measurement has are left out.
    pub fn rows(&self) -> Vec<Row> {
        type Figure = fn(&MeasureRecord) -> Option<f64>;
        let figures: [(&str, &str, Option<bool>, bool, Figure); 6] = [
            (
                "Best-NN",
                "How often the photos most like a photo name its class.",
                Some(true),
                true,
                |m| m.best_nn,
            ),
            (
                "Instance discrimination",
                "How often a photo is closer to an altered copy of itself than to any other photo.",
                Some(true),
                true,
                |m| m.instance_discrimination,
            ),
            (
                "Alignment",
                "Distance between two altered copies of a photo. Smaller is steadier.",
                Some(false),
                false,
                |m| m.alignment,
            ),
            (
                "Uniformity",
                "How evenly photos fill the space of features. More negative is more even.",
                Some(false),
                false,
                |m| m.uniformity,
            ),
            (
                "Intra-class alignment",
                "Distance between photos of a class. Smaller groups classes tighter.",
                Some(false),
                false,
                |m| m.intra_class_alignment,
            ),
            (
                "Effective rank",
                "Directions in which photos differ. One or two mean a collapse.",
                None,
                false,
                |m| m.effective_rank,
            ),
        ];
        let (before, after) = (self.before(), self.after());
        figures
            .into_iter()
            .map(|(name, meaning, larger_is_better, percent, figure)| Row {
                name,
                meaning,
                before: before.and_then(figure),
                after: after.and_then(figure),
                larger_is_better,
                percent,
            })
            .filter(|row| row.before.is_some() || row.after.is_some())
            .collect()
    }

    /// How the features fared, and the report's first sentences.
    pub fn verdict(&self) -> (Trend, String) {
        let trained = self.trained();
        match &self.judged {
            // Nothing has changed, whatever the table's figures are.
            Some(judged) if !judged.verdict.accepted() => {
                (Trend::Unchanged, format!("{trained} {}", judged.sentence))
            }
            // Without classes the verdict is what can be known.
            Some(judged) if self.after().is_some_and(|after| after.best_nn.is_none()) => {
                (Trend::Better, format!("{trained} {}", judged.sentence))
            }
            Some(judged) => {
                let (trend, text) = self.comparison(trained);
                (trend, format!("{text} {}", judged.sentence))
            }
            None => self.comparison(trained),
        }
    }

    fn comparison(&self, trained: String) -> (Trend, String) {
        let (Some(before), Some(after)) = (self.before(), self.after()) else {
            return (Trend::Unknown, format!("{trained}{}", self.loss_sentence()));
        };
        if self.collapse().is_some() {
            let text = format!(
                "{trained} The features have collapsed: photos can hardly be told apart any more, \
                 so keep the initial weights."
            );
            return (Trend::Worse, text);
        }
        // One standard error of a percentage over this many photos.
        let photos = self.info.photos.unwrap_or(400).max(1) as f64;
        let noise = |percent: f64| {
            let p = (percent / 100.0).clamp(0.0, 1.0);
            (100.0 * (p * (1.0 - p) / photos).sqrt()).max(0.5)
        };
        if let (Some(a), Some(b)) = (before.best_nn, after.best_nn) {
            let verdict = judge(b - a, noise(a));
            let change = match verdict {
                Trend::Better => format!("up from {a:.1} %"),
                Trend::Worse => format!("down from {a:.1} %"),
                _ => format!("{a:.1} % before: no more difference than chance makes"),
            };
            let text = format!(
                "{trained} The most similar photos now name the right class for {b:.1} % of the \
                 photos, {change}."
            );
            return (verdict, text);
        }
        if let (Some(a), Some(b)) = (
            before.instance_discrimination,
            after.instance_discrimination,
        ) {
            let mut verdict = judge(b - a, noise(a));
            let mut text = format!(
                "{trained} A photo is recognised among all others, by an altered copy of it, in \
                 {b:.1} % of cases ({a:.1} % before)"
            );
            if let (Some(a), Some(b)) = (before.uniformity, after.uniformity) {
                let spread = judge(a - b, 0.05);
                text += match spread {
                    Trend::Better => ", and the photos spread more evenly",
                    Trend::Worse => ", and the photos crowd closer together",
                    _ => ", and the photos spread as evenly as before",
                };
                if verdict == Trend::Same {
                    verdict = spread;
                }
            }
            text += ". No classes are known here, so only the pictures below can tell whether \
                     that serves a search.";
            return (verdict, text);
        }
        (Trend::Unknown, format!("{trained}{}", self.loss_sentence()))
    }

    fn trained(&self) -> String {
        let steps = self.steps.last().map_or(self.info.step, |s| s.step);
        if steps == 0 {
            return "No step has been taken yet.".into();
        }
        let epochs = self.steps.last().map_or(0, |s| s.epoch + 1);
        let photos = match self.info.photos {
            Some(n) => format!(" on {} photo{}", thousands(n as f64), plural(n)),
            None => String::new(),
        };
        let verb = match self.info.method.as_str() {
            "distill" => "Distilled",
            _ => "Trained",
        };
        let epochs = match epochs {
            0 => String::new(),
            n => format!(" ({} epoch{})", thousands(n as f64), plural(n)),
        };
        format!(
            "{verb} for {} step{}{epochs}{photos}.",
            thousands(steps as f64),
            plural(steps)
        )
    }

    fn loss_sentence(&self) -> String {
        let tenth = (self.steps.len() / 10).max(1);
        let mean = |steps: &[StepRecord]| {
            steps.iter().map(|s| s.loss).sum::<f64>() / steps.len().max(1) as f64
        };
        if self.steps.len() < 2 {
            return String::new();
        }
        let (from, to) = (
            mean(&self.steps[..tenth]),
            mean(&self.steps[self.steps.len() - tenth..]),
        );
        let verb = if to < from { "fell" } else { "went" };
        format!(
            " The loss {verb} from {} to {}.",
            significant(from),
            significant(to)
        )
    }
}

fn judge(gain: f64, noise: f64) -> Trend {
    match gain {
        g if g > noise => Trend::Better,
        g if g < -noise => Trend::Worse,
        _ => Trend::Same,
    }
}

fn plural(n: u64) -> &'static str {
    if n == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(before: MeasureRecord, after: MeasureRecord) -> Run {
        let at = |when, m: MeasureRecord| Record::Measure(Box::new(MeasureRecord { when, ..m }));
        let info = RunRecord {
            photos: Some(1000),
            ..RunRecord::default()
        };
        Run::new(vec![
            at(When::Before, before),
            Record::Step(StepRecord {
                step: 1,
                ..StepRecord::default()
            }),
            at(When::After, after),
            Record::Run(info),
        ])
    }

    #[test]
    fn a_verdict_speaks_where_there_is_one() {
        let judged = |share| VerdictRecord {
            verdict: seedling_core::verdict::Verdict {
                share,
                ..Default::default()
            },
            sentence: "Thus.".into(),
            ..VerdictRecord::default()
        };
        let nn = |x| MeasureRecord {
            best_nn: x,
            instance_discrimination: Some(50.0),
            ..MeasureRecord::default()
        };
        let told = |x, share| {
            let mut run = run(nn(x), nn(x));
            run.judged = Some(judged(share));
            run.verdict()
        };
        assert_eq!(told(Some(54.8), 0.0).0, Trend::Unchanged);
        assert_eq!(told(None, 0.0).0, Trend::Unchanged);
        let (trend, text) = told(None, 0.5);
        assert_eq!(trend, Trend::Better);
        assert!(
            text.ends_with("photos. Thus.") && !text.contains("No classes"),
            "{text}"
        );
        let (trend, text) = told(Some(54.8), 0.5);
        assert_eq!(trend, Trend::Same);
        assert!(text.contains("54.8 %") && text.ends_with("Thus."), "{text}");
    }

    #[test]
    fn verdicts_mind_chance_and_collapse() {
        let nn = |x| MeasureRecord {
            best_nn: Some(x),
            ..MeasureRecord::default()
        };
        assert_eq!(run(nn(54.8), nn(58.2)).verdict().0, Trend::Better);
        assert_eq!(run(nn(54.8), nn(55.0)).verdict().0, Trend::Same);
        let (verdict, text) = run(nn(54.8), nn(40.0)).verdict();
        assert_eq!(verdict, Trend::Worse);
        assert_eq!(
            text,
            "Trained for 1 step (1 epoch) on 1,000 photos. The most similar photos now name the \
             right class for 40.0 % of the photos, down from 54.8 %."
        );
        let fallen = MeasureRecord {
            collapse: Some("one point".into()),
            ..nn(99.0)
        };
        assert_eq!(run(nn(54.8), fallen).verdict().0, Trend::Worse);
        assert_eq!(Run::default().verdict().0, Trend::Unknown);

        let free = |id, u| MeasureRecord {
            instance_discrimination: Some(id),
            uniformity: Some(u),
            ..MeasureRecord::default()
        };
        assert_eq!(
            run(free(99.0, -2.0), free(99.0, -2.6)).verdict().0,
            Trend::Better
        );
        assert_eq!(
            run(free(99.0, -2.0), free(90.0, -2.6)).verdict().0,
            Trend::Worse
        );
    }

    #[test]
    fn rows_show_signs_and_directions() {
        let before = MeasureRecord {
            alignment: Some(0.5),
            ..MeasureRecord::default()
        };
        let after = MeasureRecord {
            alignment: Some(0.25),
            ..MeasureRecord::default()
        };
        let run = run(before.clone(), after);
        let rows = run.rows();
        assert_eq!(rows.len(), 1);
        assert_eq!(
            rows[0].change(),
            Some(("\u{2212}0.250".into(), Trend::Better))
        );
        let same = super::tests::run(before.clone(), before);
        assert_eq!(
            same.rows()[0].change(),
            Some(("\u{b1}0".into(), Trend::Same))
        );
    }
}
