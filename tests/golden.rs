//! Reading golden files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A golden file: tensors by name, all as f32 or i64, and the metadata.
pub struct Golden {
    floats: HashMap<String, (Vec<usize>, Vec<f32>)>,
    ints: HashMap<String, Vec<i64>>,
    pub metadata: HashMap<String, String>,
}

impl Golden {
    /// tests/golden/`name`.safetensors.
    pub fn open(name: &str) -> Golden {
        let path = root()
            .join("tests/golden")
            .join(format!("{name}.safetensors"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().clone().unwrap_or_default();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (mut floats, mut ints) = (HashMap::new(), HashMap::new());
        for (name, view) in file.tensors() {
            let data = view.data();
            match view.dtype() {
                Dtype::F32 => {
                    let values = data
                        .chunks_exact(4)
                        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                        .collect();
                    floats.insert(name, (view.shape().to_vec(), values));
                }
                Dtype::I64 => {
                    let values = data
                        .chunks_exact(8)
                        .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
                        .collect();
                    ints.insert(name, values);
                }
                Dtype::U8 => {
                    ints.insert(name, data.iter().map(|&b| b as i64).collect());
                }
                other => panic!("{name}: unexpected type {other:?}"),
            }
        }
        Golden {
            floats,
            ints,
            metadata: metadata.into_iter().collect(),
        }
    }

    /// A float tensor's numbers.
    pub fn floats(&self, name: &str) -> &[f32] {
        &self
            .floats
            .get(name)
            .unwrap_or_else(|| panic!("no tensor {name}"))
            .1
    }

    /// A float tensor's shape.
    pub fn shape(&self, name: &str) -> &[usize] {
        &self
            .floats
            .get(name)
            .unwrap_or_else(|| panic!("no tensor {name}"))
            .0
    }

    /// An integer tensor's numbers.
    pub fn ints(&self, name: &str) -> &[i64] {
        self.ints
            .get(name)
            .unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// Whether a tensor is there.
    pub fn has(&self, name: &str) -> bool {
        self.floats.contains_key(name) || self.ints.contains_key(name)
    }

    /// Distinct first `parts` dot-separated parts of names that start with `prefix`.
    pub fn cases(&self, prefix: &str, parts: usize) -> Vec<String> {
        let mut names: Vec<String> = self
            .floats
            .keys()
            .filter(|name| name.starts_with(prefix))
            .map(|name| name.split('.').take(parts).collect::<Vec<_>>().join("."))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// A metadata entry as JSON.
    pub fn json(&self, key: &str) -> serde_json::Value {
        serde_json::from_str(&self.metadata[key]).unwrap()
    }
}

/// |a - b| / |b|, Euclidean.
pub fn deviation(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let (mut difference, mut scale) = (0.0, 0.0);
    for (&a, &b) in a.iter().zip(b) {
        difference += (a as f64 - b as f64).powi(2);
        scale += (b as f64).powi(2);
    }
    (difference / scale.max(1e-60)).sqrt()
}

/// Largest |a - b| relative to the largest |b|.
pub fn worst(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let scale = b.iter().fold(1e-30f32, |m, x| m.max(x.abs())) as f64;
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs() as f64)
        .fold(0.0, f64::max)
        / scale
}
