//! Whether the adapted weights are kept.

use seedling_core::records::VerdictRecord;

/// What a session has done, and whether the trained weights are kept, decided without labels.
#[derive(Clone, Debug, PartialEq, uniffi::Record)]
pub struct Verdict {
    /// Whether what was trained is kept. Otherwise the session's backbone is the initial one.
    pub accepted: bool,
    /// Whether the album's statistics lie behind the features, in closed form: nearly always.
    pub closed_form: bool,
    /// Interpolation weight of the trained weights.
    pub interpolation: f64,
    /// Percent of what was near each photo to begin with that still is with the trained weights, chance taken
    /// away: of what is kept, or of the best that was not. Nothing where nothing was trained.
    pub neighbors_kept: Option<f64>,
    /// For the person whose photos they are.
    pub sentence: String,
}

impl From<VerdictRecord> for Verdict {
    fn from(record: VerdictRecord) -> Verdict {
        let found = record.verdict;
        Verdict {
            accepted: record.accepted,
            closed_form: found.closed_form,
            interpolation: found.interpolation,
            neighbors_kept: {
                let tried = found.tried.iter();
                let of_kept = tried.filter(|(interpolation, _)| {
                    !record.accepted || *interpolation == found.interpolation
                });
                of_kept.filter_map(|(_, kept)| *kept).reduce(f64::max)
            },
            sentence: record.sentence,
        }
    }
}
