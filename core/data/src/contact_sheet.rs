//! A picture to look at: photos beside the two views a network would be shown.

use std::path::Path;

use image::ImageFormat;

use super::photo::Photo;
use super::resize;
use super::source::PhotoSource;
use super::views::{Recipe, Scratch};
use crate::{Error, Result};
use seedling_base::rng::{Purpose, Rng};

/// Side of one picture, space around cells, and cells in a row.
const TILE: usize = 144;
const GAP: usize = 12;
const COLUMNS: usize = 3;
const PAPER: u8 = 244;

/// Renders `cells` photos spread over the dataset (fewer where it is smaller), each with its two
/// views of epoch 0, as `image_size` pixels see them. Unreadable photos are left out.
///
/// # Errors
/// No photo could be read.
pub fn render(
    source: &dyn PhotoSource,
    recipe: &Recipe,
    image_size: usize,
    seed: u64,
    cells: usize,
) -> Result<Photo> {
    let cells = cells.clamp(1, source.len().max(1));
    let mut rows: Vec<[Photo; 3]> = Vec::new();
    let mut last = None;
    for cell in 0..cells.min(source.len()) {
        let index = cell * source.len() / cells;
        let visit = |photo| with_views(photo, index, recipe, image_size, seed);
        match source.with_photo(index, visit) {
            Ok(row) => rows.push(row),
            Err(error) => last = Some(error),
        }
    }
    if rows.is_empty() {
        let none = || Error::NoPhotos("no photos to show on the contact sheet".into());
        return Err(last.unwrap_or_else(none));
    }
    let columns = COLUMNS.min(rows.len());
    let cell_width = 3 * TILE + GAP;
    let width = columns * cell_width + GAP;
    let height = rows.len().div_ceil(columns) * (TILE + GAP) + GAP;
    let mut sheet = Photo::new(width, height, vec![PAPER; width * height * 3])?;
    for (n, cell) in rows.iter().enumerate() {
        let (x, y) = (
            n % columns * cell_width + GAP,
            n / columns * (TILE + GAP) + GAP,
        );
        for (k, tile) in cell.iter().enumerate() {
            paste(&mut sheet, tile, x + k * TILE, y);
        }
    }
    Ok(sheet)
}

/// [`render`]s a sheet and writes it as PNG; a file of that name is replaced only when the new
/// one is complete.
///
/// # Errors
/// No photo could be read, or `path` can't be written.
pub fn write(
    path: &Path,
    source: &dyn PhotoSource,
    recipe: &Recipe,
    image_size: usize,
    seed: u64,
    cells: usize,
) -> Result<()> {
    let sheet = render(source, recipe, image_size, seed, cells)?;
    let (width, height) = (sheet.width as u32, sheet.height as u32);
    let picture = image::RgbImage::from_raw(width, height, sheet.rgb)
        .ok_or_else(|| Error::file(path, "the sheet's pixels don't fit its size"))?;
    let mut png = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|e| Error::file(path, e.to_string()))?;
    seedling_base::atomic::write(path, |file| file.write_all(png.get_ref()))
}

/// The photo and its two views, none larger than a tile.
fn with_views(photo: Photo, index: usize, recipe: &Recipe, size: usize, seed: u64) -> [Photo; 3] {
    let photo = photo.shrunk(2 * size);
    let mut scratch = Scratch::default();
    let views = [0, 1].map(|view| {
        // The loader's streams: these are the views training starts with.
        let mut rng = Rng::new(seed, Purpose::Augment, 0, (index * 2 + view) as u64);
        let params = recipe.sample(photo.width, photo.height, &mut rng);
        let mut rgb = vec![0; size * size * 3];
        params.render(&photo, size, &mut scratch, &mut rgb);
        let view = Photo {
            width: size,
            height: size,
            rgb,
        };
        resize::resize(&view, TILE - 4, TILE - 4)
    });
    let [first, second] = views;
    let longer = photo.width.max(photo.height);
    let side = |n: usize| (n * (TILE - 4) / longer).max(1);
    let small = resize::resize(&photo, side(photo.width), side(photo.height));
    [small, first, second]
}

/// Copies `tile` into the middle of the tile-sized square at (`x`, `y`).
fn paste(sheet: &mut Photo, tile: &Photo, x: usize, y: usize) {
    let x = x + (TILE - tile.width) / 2;
    let y = y + (TILE - tile.height) / 2;
    for (row, pixels) in tile.rgb.chunks_exact(tile.width * 3).enumerate() {
        let start = ((y + row) * sheet.width + x) * 3;
        sheet.rgb[start..start + pixels.len()].copy_from_slice(pixels);
    }
}
