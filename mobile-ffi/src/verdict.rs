//! Whether the adapted weights are kept.

use seedling_core::records::VerdictRecord;

/// What a session has done, and whether what it trained is kept, asked without labels.
#[derive(Clone, Debug, PartialEq, uniffi::Record)]
pub struct Verdict {
    /// Whether what was trained is kept. Otherwise the session's backbone is the initial one.
    pub accepted: bool,
    /// Whether the album's statistics lie behind the features, in closed form: nearly always.
    pub closed_form: bool,
    /// Share of what training has changed that they keep.
    pub share: f64,
    /// Percent of photos whose neighbours name their kind, with the initial weights.
    pub initial: Option<f64>,
    /// The same with the best of the adapted ones.
    pub adapted: Option<f64>,
    /// For the person whose photos they are.
    pub sentence: String,
}

impl From<VerdictRecord> for Verdict {
    fn from(record: VerdictRecord) -> Verdict {
        let found = record.verdict;
        Verdict {
            accepted: record.accepted,
            closed_form: found.closed_form,
            share: found.share,
            initial: found.initial,
            adapted: found
                .tried
                .iter()
                .filter_map(|(_, found)| *found)
                .reduce(f64::max),
            sentence: record.sentence,
        }
    }
}
