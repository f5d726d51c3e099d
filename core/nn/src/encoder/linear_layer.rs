//! A linear layer behind a backbone's features: what a dataset's statistics come to (`whitening`), under
//! the name of the network's own class layer, so that other programs load it as they load classes.

use super::FeatureNet;
use crate::cpu::l2_normalize;
use crate::gemm::{MatMul, Matrix, gemm};
use crate::{Error, Result};
use std::sync::Arc;

/// `out = weight . features + bias`. What is compared afterwards is its direction: see
/// [`LinearLayer::apply`]. Cloning shares the numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearLayer {
    inputs: usize,
    // Shared: some are as large as a network's largest layer.
    weight: Arc<[f32]>,
    bias: Arc<[f32]>,
}

impl LinearLayer {
    /// `weight` is (outputs, inputs), row-major; `bias` has a number for each output.
    ///
    /// # Errors
    /// [`Error::Shape`] where they do not fit each other.
    pub fn new(inputs: usize, weight: Vec<f32>, bias: Vec<f32>) -> Result<LinearLayer> {
        if inputs == 0 || bias.is_empty() || weight.len() != inputs * bias.len() {
            return Err(Error::Shape {
                tensor: "linear layer".into(),
                expected: vec![bias.len(), inputs],
                got: vec![weight.len()],
            });
        }
        Ok(LinearLayer {
            inputs,
            weight: weight.into(),
            bias: bias.into(),
        })
    }

    /// Length of the features that it takes.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Length of those that it gives.
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// (outputs, inputs), row-major.
    pub fn weight(&self) -> &[f32] {
        &self.weight
    }

    /// (outputs).
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// `features` is (n, inputs); returns (n, outputs), every row of unit length.
    pub fn apply(&self, features: &[f32]) -> Vec<f32> {
        let (n, outputs) = (features.len() / self.inputs, self.outputs());
        let mut out = self.bias.repeat(n);
        gemm(
            MatMul {
                m: n,
                n: outputs,
                k: self.inputs,
            },
            Matrix::rows(features, self.inputs),
            Matrix::rows(&self.weight, self.inputs).transposed(),
            &mut out,
            true,
        );
        l2_normalize::forward(&mut out, outputs);
        out
    }
}

/// A network with such a layer behind its features: these are of unit length.
pub struct WithLayer {
    net: Arc<dyn FeatureNet>,
    layer: LinearLayer,
}

impl WithLayer {
    /// `net` itself where there is no layer.
    ///
    /// # Errors
    /// [`Error::Shape`] where the layer takes other features than the network's.
    pub fn wrap(
        net: Arc<dyn FeatureNet>,
        layer: Option<LinearLayer>,
    ) -> Result<Arc<dyn FeatureNet>> {
        let Some(layer) = layer else {
            return Ok(net);
        };
        if layer.inputs != net.feature_dim() {
            return Err(Error::Shape {
                tensor: "linear layer".into(),
                expected: vec![layer.outputs(), net.feature_dim()],
                got: vec![layer.outputs(), layer.inputs],
            });
        }
        Ok(Arc::new(WithLayer { net, layer }))
    }
}

impl FeatureNet for WithLayer {
    fn feature_dim(&self) -> usize {
        self.layer.outputs()
    }

    fn features_of(&self, images: &[Vec<f32>], size: (usize, usize)) -> Result<Vec<f32>> {
        Ok(self.layer.apply(&self.net.features_of(images, size)?))
    }

    fn release(&self) {
        self.net.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_projected_and_of_unit_length() {
        let weight = vec![1.0, 0.0, 2.0, 0.0, 3.0, 0.0];
        let layer = LinearLayer::new(3, weight, vec![0.0, -3.0]).unwrap();
        let out = layer.apply(&[3.0, 2.0, 0.0, 0.0, 1.0, 0.0]);
        let root = 18f32.sqrt();
        assert!((out[0] - 3.0 / root).abs() < 1e-6 && (out[1] - 3.0 / root).abs() < 1e-6);
        // What lies at the center has no direction.
        assert_eq!(out[2..], [0.0, 0.0]);
        assert!(LinearLayer::new(3, vec![0.0; 5], vec![0.0; 2]).is_err());
        assert!(LinearLayer::new(0, vec![], vec![]).is_err());
    }
}
