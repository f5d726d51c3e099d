//! The sample of photos that a run's report shows.

use rayon::prelude::*;
use seedling_core::Result;
use seedling_core::data::PhotoSource;
use seedling_core::eval::{Features, Measured, measured};
use seedling_core::records::When;
use seedling_report::{Thumbnails, thumbnails};
use std::collections::HashMap;
use std::path::Path;

/// Makes the thumbnails of a new run from the measurement before training, and writes it.
///
/// # Errors
/// It cannot be written.
pub fn create(folder: &Path, source: &dyn PhotoSource, before: &Measured, seed: u64) -> Result<()> {
    let rows = thumbnails::sample(before.photos.len(), seed);
    let photos: Vec<usize> = rows.iter().map(|&row| before.photos[row]).collect();
    let labels = measured::labels(source, &photos);
    let picture = |&photo: &usize| {
        let small = source.with_photo(photo, |photo| {
            let (width, height) = (photo.width as u32, photo.height as u32);
            let pixels = image::RgbImage::from_raw(width, height, photo.rgb)?;
            thumbnails::thumbnail(&pixels).ok()
        });
        small.ok().flatten()
    };
    let thumbnails = Thumbnails {
        ids: photos.iter().map(|&p| source.id(p).to_string()).collect(),
        classes: match labels {
            Some(_) => source.classes().to_vec(),
            None => Vec::new(),
        },
        labels: labels.unwrap_or_default(),
        before: Some(before.features.select(&rows)),
        closed_form: None,
        after: None,
        // A photo that can't be read any more has no picture.
        thumbnails: photos
            .par_iter()
            .map(|p| picture(p).unwrap_or_default())
            .collect(),
    };
    thumbnails.write(folder)
}

/// Adds the features of the closed form or those after training to the run's thumbnails, for the photos it holds.
///
/// # Errors
/// It cannot be read or written.
pub fn add(folder: &Path, source: &dyn PhotoSource, when: When, found: &Measured) -> Result<()> {
    let Some(mut thumbnails) = Thumbnails::read(folder)? else {
        return Ok(());
    };
    let rows: HashMap<&str, usize> = found
        .photos
        .iter()
        .enumerate()
        .map(|(row, &photo)| (source.id(photo), row))
        .collect();
    let places: Option<Vec<usize>> = thumbnails
        .ids
        .iter()
        .map(|id| rows.get(id.as_str()).copied())
        .collect();
    // Where a photo has vanished since, the map is of the features before alone.
    let features = places.map(|rows| -> Features { found.features.select(&rows) });
    match when {
        When::ClosedForm => thumbnails.closed_form = features,
        _ => thumbnails.after = features,
    }
    thumbnails.write(folder)
}
