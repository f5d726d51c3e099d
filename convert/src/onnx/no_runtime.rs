//! A program that was built without the ONNX runtime.

use seedling_core::encoder::FeatureNet;
use seedling_core::{Error, Result};
use std::convert::Infallible;
use std::path::Path;

/// A graph as an image encoder, of which there is none here.
pub struct OnnxNet(Infallible);

impl OnnxNet {
    /// Refuses, and says how to build a program that does not.
    ///
    /// # Errors
    /// Always.
    pub fn open(path: &Path, _: &str, _: usize, _: usize) -> Result<OnnxNet> {
        Err(Error::file(
            path,
            "an ONNX graph as a teacher needs a runtime, and this program was built without it: \
             cargo build --release --features onnx",
        ))
    }
}

impl FeatureNet for OnnxNet {
    fn feature_dim(&self) -> usize {
        match self.0 {}
    }

    fn features_of(&self, _: &[Vec<f32>], _: (usize, usize)) -> Result<Vec<f32>> {
        match self.0 {}
    }

    fn release(&self) {
        match self.0 {}
    }
}
