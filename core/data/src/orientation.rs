//! How a photo has to be turned, as its EXIF block says.

use exif::{In, Reader, Tag, Value};
use image::metadata::Orientation;

/// The orientation of an EXIF block (a TIFF of its own), whatever width of number it is written in; upright
/// where it says none.
pub(super) fn orientation(block: &[u8]) -> Orientation {
    let read = Reader::new()
        .continue_on_error(true)
        .read_raw(block.to_vec());
    let read = match read {
        Ok(read) => Some(read),
        // What stands before the damage counts.
        Err(error) => error.distill_partial_result(|_| {}).ok(),
    };
    let number = read.and_then(|read| {
        let field = read.get_field(Tag::Orientation, In::PRIMARY)?;
        match &field.value {
            Value::SByte(all) => all.first().map(|&n| n as u32),
            Value::SShort(all) => all.first().map(|&n| n as u32),
            Value::SLong(all) => all.first().map(|&n| n as u32),
            value => value.get_uint(0),
        }
    });
    number
        .and_then(|number| Orientation::from_exif(u8::try_from(number).ok()?))
        .unwrap_or(Orientation::NoTransforms)
}
