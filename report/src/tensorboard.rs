//! Event files that TensorBoard reads: TFRecord frames around protocol-buffer `Event` messages,
//! encoded by hand (five fields of the format are all that scalars need).

use seedling_core::error::{Error, Result};
use seedling_core::records::Record;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// CRC-32C (Castagnoli), reflected polynomial.
const CRC_TABLE: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0x82F6_3B78
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

/// CRC-32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (crc >> 8) ^ CRC_TABLE[((crc ^ byte as u32) & 0xFF) as usize]
    })
}

/// TFRecord stores checksums rotated and shifted, so that a checksum of checksums stays useful.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// One TFRecord frame: length, its checksum, the data, its checksum.
pub fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(data.len() + 16);
    out.extend(length);
    out.extend(masked_crc(&length).to_le_bytes());
    out.extend(data);
    out.extend(masked_crc(data).to_le_bytes());
    out
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes_field(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// What an event carries, by its field number in `Event`.
enum What<'a> {
    /// 3: `file_version`, the first event of a file.
    Version,
    /// 5: `summary`, tags and values.
    Scalars(&'a [(&'a str, f64)]),
    /// 7: `session_log` START: values at this step and later from earlier files are void.
    Restart,
}

/// An `Event` message.
fn event(wall_time: f64, step: u64, what: What<'_>) -> Vec<u8> {
    let mut out = vec![1 << 3 | 1];
    out.extend(wall_time.to_le_bytes());
    out.push(2 << 3);
    varint(&mut out, step);
    match what {
        What::Version => bytes_field(&mut out, 3, b"brain.Event:2"),
        What::Restart => bytes_field(&mut out, 7, &[1 << 3, 1]),
        What::Scalars(scalars) => {
            let mut summary = Vec::new();
            for &(tag, value) in scalars {
                let mut one = Vec::with_capacity(tag.len() + 8);
                bytes_field(&mut one, 1, tag.as_bytes());
                one.push(2 << 3 | 5);
                one.extend((value as f32).to_le_bytes());
                bytes_field(&mut summary, 1, &one);
            }
            bytes_field(&mut out, 5, &summary);
        }
    }
    out
}

/// Writes one event file. The caller gives the time: this crate reads no clock.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Starts a new event file in `run`. `wall_time` is in seconds since 1970.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be written.
    pub fn create(run: &Path, wall_time: f64) -> Result<EventWriter> {
        let mut number = 0;
        // TensorBoard reads files in the order of their names: never reuse one.
        let (path, file) = loop {
            let name = format!(
                "events.out.tfevents.{:010}.seedling.{number}",
                wall_time as u64
            );
            let path = run.join(name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                other => break (path.clone(), other.map_err(Error::io(&path))?),
            }
        };
        let mut writer = EventWriter { path, file };
        writer.write_event(wall_time, 0, What::Version)?;
        Ok(writer)
    }

    /// Starts a further file for a run resumed after `step`; TensorBoard then drops what earlier
    /// files say of later steps.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be written.
    pub fn resume(run: &Path, wall_time: f64, step: u64) -> Result<EventWriter> {
        let mut writer = EventWriter::create(run, wall_time)?;
        writer.write_event(wall_time, step + 1, What::Restart)?;
        Ok(writer)
    }

    /// Adds values at `step`.
    ///
    /// # Errors
    /// [`Error::Io`] where they cannot be written.
    pub fn scalars(&mut self, wall_time: f64, step: u64, scalars: &[(&str, f64)]) -> Result<()> {
        if scalars.is_empty() {
            return Ok(());
        }
        self.write_event(wall_time, step, What::Scalars(scalars))
    }

    /// Adds what a line of `metrics.jsonl` says: `train/*` for steps, `measure/*` for
    /// measurements.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be written.
    pub fn record(&mut self, wall_time: f64, record: &Record) -> Result<()> {
        let values: Vec<(&str, Option<f64>)> = match record {
            Record::Verdict(_) | Record::Run(_) => Vec::new(),
            Record::Step(r) => vec![
                ("train/loss", Some(r.loss)),
                ("train/lr", Some(r.lr)),
                ("train/epoch", Some(r.epoch as f64)),
                ("train/images_per_second", r.images_per_second),
                ("train/accuracy", r.accuracy),
            ],
            Record::Measure(r) => vec![
                ("measure/alignment", r.alignment),
                ("measure/uniformity", r.uniformity),
                ("measure/intra_class_alignment", r.intra_class_alignment),
                ("measure/instance_discrimination", r.instance_discrimination),
                ("measure/lidar", r.lidar),
                ("measure/best_nn", r.best_nn),
                ("measure/std_ratio", r.std_ratio),
                ("measure/effective_rank", r.effective_rank),
            ],
        };
        let values: Vec<(&str, f64)> = values
            .into_iter()
            .filter_map(|(tag, value)| value.map(|v| (tag, v)))
            .collect();
        self.scalars(wall_time, record.step(), &values)
    }

    /// The file being written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One event in one write: a reader sees it at once, and a crash tears the last one only.
    fn write_event(&mut self, wall_time: f64, step: u64, what: What<'_>) -> Result<()> {
        let bytes = frame(&event(wall_time, step, what));
        self.file.write_all(&bytes).map_err(Error::io(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_have_their_published_values() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46DD_794E);
    }

    #[test]
    fn an_event_is_encoded_as_protobuf_says() {
        let bytes = event(1.0, 300, What::Scalars(&[("a", 0.5)]));
        let mut want = vec![0x09];
        want.extend(1.0f64.to_le_bytes());
        want.extend([
            0x10, 0xAC, 0x02, 0x2A, 0x0A, 0x0A, 0x08, 0x0A, 0x01, b'a', 0x15,
        ]);
        want.extend(0.5f32.to_le_bytes());
        assert_eq!(bytes, want);
        let framed = frame(&bytes);
        assert_eq!(framed.len(), bytes.len() + 16);
        assert_eq!(framed[..8], (bytes.len() as u64).to_le_bytes());
    }
}
