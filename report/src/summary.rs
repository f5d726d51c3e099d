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

/// Where there are no classes to say it: the means over the datasets of docs/results.md.
pub const USUAL_GAIN: &str = "No classes are known here, so nothing can be counted. On eleven datasets with known \
                              classes the closed form raised the precision of the first ten results by 3 \
                              points and mean average precision by 4; on none did any figure fall by more \
                              than half a point.";

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What is measured.
    pub name: &'static str,
    /// What it means, in a sentence.
    pub meaning: &'static str,
    /// The figure in each of [`Run::columns`].
    pub values: Vec<Option<f64>>,
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

    /// The change from the first column to the last as the table shows it, with its sign.
    pub fn change(&self) -> Option<(String, Trend)> {
        let (first, others) = self.values.split_first()?;
        let change = (*others.last()?)? - (*first)?;
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

    /// The measurement of the initial weights with the closed form behind them.
    pub fn closed_form(&self) -> Option<&MeasureRecord> {
        let mut found = self.measures.iter();
        found.find(|m| m.when == When::ClosedForm)
    }

    /// The measurement of the final weights, or in an unfinished run the last one taken.
    pub fn after(&self) -> Option<&MeasureRecord> {
        let last = |when| self.measures.iter().rev().find(move |m| m.when == when);
        let ended = last(When::After).or_else(|| last(When::During));
        ended.or_else(|| last(When::ClosedForm))
    }

    /// Whether what was trained is what the run has left, or will leave.
    pub fn leaves_trained(&self) -> bool {
        let steps = self.steps.last().map_or(self.info.step, |s| s.step);
        let kept = |judged: &VerdictRecord| judged.verdict.accepted();
        steps > 0 && self.judged.as_ref().is_none_or(kept)
    }

    /// The measurements that are shown side by side, with their names: before, after the closed form, and
    /// after training, as far as there are these.
    pub fn columns(&self) -> Vec<(&'static str, &MeasureRecord)> {
        let mut columns = Vec::new();
        columns.extend(self.before().map(|found| ("Before", found)));
        let closed_form = self.closed_form();
        columns.extend(closed_form.map(|found| ("Closed form", found)));
        let trained = match closed_form {
            Some(_) => self.leaves_trained().then_some("Trained"),
            None => Some("After"),
        };
        let last = self.after().filter(|last| last.when != When::ClosedForm);
        columns.extend(trained.zip(last));
        columns
    }

    /// The last warning of a collapse, where there was one.
    pub fn collapse(&self) -> Option<&str> {
        self.after()?.collapse.as_deref()
    }

    /// The table; figures that no measurement has are left out.
    pub fn rows(&self) -> Vec<Row> {
        type Figure = fn(&MeasureRecord) -> Option<f64>;
        let figures: [(&str, &str, Option<bool>, bool, Figure); 11] = [
            (
                "Best-NN",
                "How often the photos most like a photo name its class.",
                Some(true),
                true,
                |m| m.best_nn,
            ),
            (
                "Precision at 10",
                "How many of the ten photos most like a photo are of its class.",
                Some(true),
                true,
                |m| m.panel.precision_at_10,
            ),
            (
                "Mean average precision",
                "How near the top all photos of a photo's class are ranked.",
                Some(true),
                true,
                |m| m.panel.mean_average_precision,
            ),
            (
                "1-shot accuracy",
                "How many photos are told right from one labeled photo of each class.",
                Some(true),
                true,
                |m| m.panel.one_shot,
            ),
            (
                "5-shot accuracy",
                "The same from five labeled photos.",
                Some(true),
                true,
                |m| m.panel.five_shot,
            ),
            (
                "Purity of clusters",
                "How many photos are of the commonest class of their cluster.",
                Some(true),
                true,
                |m| m.panel.purity,
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
        let columns = self.columns();
        // Centered features lie all around the sphere: distances on it say nothing beside those of others.
        let comparable = self.closed_form().is_none();
        figures
            .into_iter()
            .map(|(name, meaning, larger_is_better, percent, figure)| Row {
                name,
                meaning,
                values: columns.iter().map(|(_, found)| figure(found)).collect(),
                larger_is_better: larger_is_better.filter(|_| percent || comparable),
                percent,
            })
            .filter(|row| row.values.iter().any(Option::is_some))
            .collect()
    }

    /// How the features fared, and the report's first sentences: what got better and by how much, then what
    /// was done.
    pub fn verdict(&self) -> (Trend, String) {
        let (trend, compared) = self.comparison();
        let judged = self.judged.as_ref().map(|judged| judged.sentence.clone());
        let parts = [compared, Some(self.done()), judged];
        let parts = parts.into_iter().flatten().filter(|part| !part.is_empty());
        let parts: Vec<String> = parts.collect();
        (trend, parts.join(" "))
    }

    /// How the last column compares with the first.
    fn comparison(&self) -> (Trend, Option<String>) {
        let columns = self.columns();
        let (Some((_, before)), Some((_, after))) =
            (columns.first(), columns.get(1..).and_then(<[_]>::last))
        else {
            return (Trend::Unknown, None);
        };
        if self.collapse().is_some() {
            let text = "The features have collapsed: photos can hardly be told apart any more, so keep the \
                        initial weights.";
            return (Trend::Worse, Some(text.into()));
        }
        if let Some(found) = self.by_classes(before, after) {
            return found;
        }
        let rejected = self.judged.as_ref().is_some_and(|j| !j.verdict.accepted());
        match (self.closed_form(), &self.judged) {
            // Nothing has changed, whatever the table's figures are.
            (None, Some(_)) if rejected => (Trend::Unchanged, None),
            // Without classes the verdict is what can be known.
            (None, Some(_)) => (Trend::Better, None),
            (Some(_), _) => (Trend::Better, Some(USUAL_GAIN.into())),
            (None, None) => self.without_classes(before, after),
        }
    }

    /// By every figure of the panel: better where some gain more than chance makes and none clearly loses.
    fn by_classes(
        &self,
        before: &MeasureRecord,
        after: &MeasureRecord,
    ) -> Option<(Trend, Option<String>)> {
        let photos = self.info.photos.unwrap_or(400).max(1) as f64;
        // One standard error of a percentage over this many photos.
        let noise = |percent: f64| {
            let p = (percent / 100.0).clamp(0.0, 1.0);
            (100.0 * (p * (1.0 - p) / photos).sqrt()).max(0.5)
        };
        type Figure = fn(&MeasureRecord) -> Option<f64>;
        let figures: [(&str, Figure); 5] = [
            ("precision of the first ten results", |m| {
                m.panel.precision_at_10
            }),
            ("mean average precision", |m| m.panel.mean_average_precision),
            ("accuracy from one labeled photo a class", |m| {
                m.panel.one_shot
            }),
            ("accuracy from five", |m| m.panel.five_shot),
            ("best-NN", |m| m.best_nn),
        ];
        let known: Vec<(&str, f64, f64)> = figures
            .iter()
            .filter_map(|(name, figure)| Some((*name, figure(before)?, figure(after)?)))
            .collect();
        if known.is_empty() {
            return None;
        }
        let judged = |&(_, a, b): &(&str, f64, f64)| judge(b - a, noise(a));
        let of = |trend| known.iter().filter(move |figure| judged(figure) == trend);
        let (gains, losses) = (of(Trend::Better).count(), of(Trend::Worse).count());
        let trend = match (gains, losses) {
            (0, 0) => Trend::Same,
            (_, 0) => Trend::Better,
            (0, _) => Trend::Worse,
            _ => Trend::Same,
        };
        let listed = |trend| {
            let items = of(trend).map(|(name, a, b)| format!("{name} from {a:.1} to {b:.1} %"));
            items.collect::<Vec<_>>().join(", ")
        };
        let text = match (gains, losses) {
            (0, 0) => {
                let (name, a, b) = known[0];
                format!(
                    "No more difference than chance makes: {name} {a:.1} % before, {b:.1} % now."
                )
            }
            (_, 0) => format!("Better: {}.", listed(Trend::Better)),
            (0, _) => format!("Worse: {}.", listed(Trend::Worse)),
            _ => format!(
                "Better by some figures ({}), worse by others ({}).",
                listed(Trend::Better),
                listed(Trend::Worse)
            ),
        };
        Some((trend, Some(text)))
    }

    fn without_classes(
        &self,
        before: &MeasureRecord,
        after: &MeasureRecord,
    ) -> (Trend, Option<String>) {
        let (Some(a), Some(b)) = (
            before.instance_discrimination,
            after.instance_discrimination,
        ) else {
            return (Trend::Unknown, None);
        };
        let mut verdict = judge(b - a, 1.0);
        let mut text = format!(
            "A photo is recognized among all others, by an altered copy of it, in {b:.1} % of cases \
             ({a:.1} % before)"
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
        text += ". No classes are known here, so only the pictures below can tell whether that serves a \
                 search.";
        (verdict, Some(text))
    }

    /// What was done.
    fn done(&self) -> String {
        let closed_form = match (self.closed_form(), &self.judged) {
            // The verdict says it.
            (None, _) | (_, Some(_)) => "",
            (Some(_), None) => " A linear layer is fitted to the features.",
        };
        let steps = self.steps.last().map_or(self.info.step, |s| s.step);
        let ended = !self.info.method.is_empty();
        match (steps, ended, &self.judged) {
            (0, true, Some(_)) => String::new(),
            (0, true, None) => format!("Nothing was trained.{closed_form}"),
            _ if self.columns().len() > 1 => self.trained() + closed_form,
            _ => self.trained() + &self.loss_sentence(),
        }
    }

    fn trained(&self) -> String {
        let steps = self.steps.last().map_or(self.info.step, |s| s.step);
        if steps == 0 {
            return "No step has been taken yet.".into();
        }
        let epochs = self.steps.last().map_or(0, |s| s.epoch + 1);
        let photos = match self.info.trained_on.or(self.info.photos) {
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

    fn judged(interpolation: f64) -> VerdictRecord {
        VerdictRecord {
            verdict: seedling_core::verdict::Verdict {
                interpolation,
                ..Default::default()
            },
            sentence: "Thus.".into(),
            ..VerdictRecord::default()
        }
    }

    fn nn(x: f64) -> MeasureRecord {
        MeasureRecord {
            best_nn: Some(x),
            ..MeasureRecord::default()
        }
    }

    #[test]
    fn the_first_sentence_says_what_got_better_and_the_last_is_the_verdicts() {
        let told = |before, after, interpolation| {
            let mut run = run(before, after);
            run.judged = Some(judged(interpolation));
            run.verdict()
        };
        let free = MeasureRecord::default;
        assert_eq!(told(free(), free(), 0.0).0, Trend::Unchanged);
        assert_eq!(told(free(), free(), 0.5).0, Trend::Better);
        let (trend, text) = told(nn(54.8), nn(60.0), 0.5);
        assert_eq!(trend, Trend::Better);
        assert_eq!(
            text,
            "Better: best-NN from 54.8 to 60.0 %. Trained for 1 step (1 epoch) on 1,000 photos. Thus."
        );
        let (trend, text) = told(nn(54.8), nn(55.0), 0.5);
        assert_eq!(trend, Trend::Same);
        assert!(
            text.starts_with("No more difference than chance makes"),
            "{text}"
        );
    }

    #[test]
    fn nothing_is_better_that_loses_clearly_by_one_figure() {
        let panel = |best_nn, map| MeasureRecord {
            panel: seedling_core::eval::Panel {
                mean_average_precision: Some(map),
                ..Default::default()
            },
            ..nn(best_nn)
        };
        let (trend, text) = run(panel(60.0, 40.0), panel(65.0, 32.0)).verdict();
        assert_eq!(trend, Trend::Same);
        assert!(
            text.contains("worse by others (mean average precision"),
            "{text}"
        );
        let (trend, text) = run(panel(60.0, 40.0), panel(59.9, 44.0)).verdict();
        assert_eq!(trend, Trend::Better);
        assert!(!text.contains("best-NN"), "{text}");
        let (trend, _) = run(panel(60.0, 40.0), panel(40.0, 40.0)).verdict();
        assert_eq!(trend, Trend::Worse);
    }

    #[test]
    fn three_columns_where_what_was_trained_is_kept_and_two_where_it_is_not() {
        let mut run = run(nn(50.0), nn(56.0));
        run.measures.insert(
            1,
            MeasureRecord {
                when: When::ClosedForm,
                ..nn(53.0)
            },
        );
        let names = |run: &Run| {
            run.columns()
                .iter()
                .map(|(name, _)| *name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&run), ["Before", "Closed form", "Trained"]);
        assert_eq!(run.rows()[0].values, [Some(50.0), Some(53.0), Some(56.0)]);
        run.judged = Some(judged(0.0));
        assert_eq!(names(&run), ["Before", "Closed form"]);
        let (trend, text) = run.verdict();
        assert_eq!(trend, Trend::Better);
        assert!(
            text.starts_with("Better: best-NN from 50.0 to 53.0 %. Trained"),
            "{text}"
        );
        // Nothing trained at all.
        run.judged = None;
        run.steps.clear();
        run.info.method = "adapt".into();
        assert_eq!(names(&run), ["Before", "Closed form"]);
        assert!(run.verdict().1.contains("Nothing was trained."));
    }

    #[test]
    fn collapse_and_runs_without_classes() {
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
