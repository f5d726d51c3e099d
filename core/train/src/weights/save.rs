//! Writing weight files.

use super::{HEAD_PREFIX, LINEAR_LAYER, ModelMetadata};
use crate::{Error, Result};
use seedling_base::tensor_file::{self, Data, TensorRef};
use seedling_nn::backend::Backend;
use seedling_nn::encoder::LinearLayer;
use seedling_nn::layout::{Entry, Role};
use seedling_nn::params::Params;
use std::collections::BTreeMap;
use std::path::Path;

/// How many bits a number gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32 throughout.
    Full,
    /// f16 for kernels, which are nearly all of the file; batch norm and biases stay f32.
    Half,
}

/// Writes the backbone of a network, replacing `path` atomically. Batch norm's
/// `num_batches_tracked` is written too (as 0: it is of no consequence), because PyTorch's strict
/// loading asks for it. `layer`, behind the features, is always f32: it takes large means away.
///
/// # Errors
/// A number is not finite or too large for half precision; the disk refuses.
pub fn save_backbone<B: Backend>(
    path: &Path,
    params: &Params<B>,
    feature_dim: usize,
    metadata: &ModelMetadata,
    layer: Option<&LinearLayer>,
    precision: Precision,
) -> Result<()> {
    let mut header = metadata.to_header();
    let dim = layer.map_or(feature_dim, LinearLayer::outputs);
    header.insert("feature_dim".into(), dim.to_string());
    let name = metadata.architecture.arch.spec().class_layer;
    let name = name.trim_end_matches('.');
    if layer.is_some() {
        header.insert(LINEAR_LAYER.into(), name.into());
    }
    let layer = layer.map(|layer| (name, layer));
    save_as(path, params, &header, layer, precision, |entry| {
        (!entry.name.starts_with(HEAD_PREFIX)).then(|| (entry.name.clone(), entry.shape.clone()))
    })
}

/// Writes the projection head of a network, replacing `path` atomically.
///
/// # Errors
/// As [`save_backbone`].
pub fn save_head<B: Backend>(
    path: &Path,
    params: &Params<B>,
    feature_dim: usize,
    metadata: &ModelMetadata,
) -> Result<()> {
    let mut header = metadata.to_header();
    header.insert("feature_dim".into(), feature_dim.to_string());
    save_as(path, params, &header, None, Precision::Full, |entry| {
        (entry.name.starts_with(HEAD_PREFIX)).then(|| (entry.name.clone(), entry.shape.clone()))
    })
}

/// Writes those tensors of a network that `name` gives a name and a shape of as many numbers,
/// replacing `path` atomically; with every batch norm its count of batches, as [`save_backbone`], and
/// under its name the linear layer behind the features.
///
/// # Errors
/// As [`save_backbone`].
pub fn save_as<B: Backend>(
    path: &Path,
    params: &Params<B>,
    metadata: &BTreeMap<String, String>,
    layer: Option<(&str, &LinearLayer)>,
    precision: Precision,
    name: impl Fn(&Entry) -> Option<(String, Vec<usize>)>,
) -> Result<()> {
    let (values, buffers) = params.host()?;
    let mut tensors = Vec::new();
    for entry in params.layout.entries() {
        let Some((name, shape)) = name(entry) else {
            continue;
        };
        let all: &[f32] = if entry.role.is_buffer() {
            &buffers
        } else {
            &values
        };
        let numbers = all.get(entry.range.clone()).unwrap_or_default();
        let halved = precision == Precision::Half
            && matches!(
                entry.role,
                Role::ConvWeight | Role::LinearWeight | Role::ProjectionWeight
            );
        check(path, entry, numbers, halved)?;
        if let Some(norm) = name.strip_suffix("running_var") {
            tensors.push(TensorRef {
                name: format!("{norm}num_batches_tracked"),
                shape: Vec::new(),
                data: Data::I64(&[0]),
            });
        }
        tensors.push(TensorRef {
            name,
            shape,
            data: if halved {
                Data::F16(numbers)
            } else {
                Data::F32(numbers)
            },
        });
    }
    if let Some((name, layer)) = layer {
        if let Some(x) = [layer.weight(), layer.bias()]
            .concat()
            .iter()
            .find(|x| !x.is_finite())
        {
            return Err(Error::file(path, format!("not written: {name} holds {x}")));
        }
        let mut add = |leaf: &str, shape: Vec<usize>, data| {
            tensors.push(TensorRef {
                name: format!("{name}.{leaf}"),
                shape,
                data: Data::F32(data),
            });
        };
        add(
            "weight",
            vec![layer.outputs(), layer.inputs()],
            layer.weight(),
        );
        add("bias", vec![layer.outputs()], layer.bias());
    }
    tensor_file::write(path, &tensors, metadata)
}

fn check(path: &Path, entry: &Entry, numbers: &[f32], halved: bool) -> Result<()> {
    let limit = if halved { 65_504.0 } else { f32::MAX };
    match numbers.iter().find(|x| x.is_nan() || x.abs() > limit) {
        None => Ok(()),
        Some(x) => Err(Error::file(
            path,
            format!("not written: {} holds {x}", entry.name),
        )),
    }
}
