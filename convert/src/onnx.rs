//! A network's features as an ONNX graph (opset 17), so that an app can compute them with any runtime; and
//! graphs of others as teachers ([`OnnxNet`]).
//!
//! The network is not described a second time: it runs once on a backend that computes nothing and
//! writes down what it was asked for (`trace`).

mod graph;
mod proto;
#[cfg_attr(not(feature = "onnx"), path = "onnx/no_runtime.rs")]
mod runtime;
mod trace;

pub use self::runtime::OnnxNet;

use self::graph::Graph;
use self::trace::Tracer;
use prost::Message;
use seedling_core::encoder::{Encoder, LinearLayer};
use seedling_core::weights::ModelMetadata;
use seedling_core::{Error, Result, atomic};
use std::path::Path;

/// Names of the graph's input and output.
pub const INPUT: &str = "images";
/// See [`INPUT`].
pub const OUTPUT: &str = "features";

/// Writes the features of `encoder`: from `images` (batch, 3, height, width), normalized as the file's
/// metadata say, to `features` (batch, dim). The batch is free, the size is the weights' own. Behind a linear
/// `layer` features are of unit length.
///
/// # Errors
/// The disk refuses; a network has an operation that this does not know.
pub fn write(
    path: &Path,
    net: (&Encoder, Option<&LinearLayer>),
    metadata: &ModelMetadata,
) -> Result<()> {
    let bytes = bytes(net, metadata)?;
    atomic::write(path, |file| file.write_all(&bytes))
}

/// The same in memory.
///
/// # Errors
/// As [`fn@write`].
pub fn bytes(
    (encoder, layer): (&Encoder, Option<&LinearLayer>),
    metadata: &ModelMetadata,
) -> Result<Vec<u8>> {
    let side = metadata.image_size;
    let tracer = Tracer::new(&encoder.params.layout);
    let mut network = Encoder::with_backend(tracer.clone(), encoder.architecture, false, 0)?;
    let (from, statistics) = encoder.params.host()?;
    network.params.edit(|values, buffers| {
        let len = values.len();
        values.copy_from_slice(&from[..len]);
        buffers.copy_from_slice(&statistics);
    })?;
    let images = network.images(1, (side, side), |_| ())?;
    network.features(&images)?;
    let mut graph: Graph = tracer.finish();
    let mut dim = encoder.feature_dim();
    if let Some(layer) = layer {
        add_layer(&mut graph, layer);
        dim = layer.outputs();
    }
    graph.metadata = vec![
        ("arch".into(), metadata.architecture.arch.name().into()),
        ("image_size".into(), side.to_string()),
        ("mean".into(), triple(metadata.normalize.mean)),
        ("std".into(), triple(metadata.normalize.std)),
        ("made".into(), metadata.made.clone()),
    ];
    let model = graph.model(side, dim);
    if model.encoded_len() >= 1 << 31 {
        return Err(Error::Config(
            "an ONNX file may not be larger than 2 GB".into(),
        ));
    }
    Ok(model.encode_to_vec())
}

/// The linear layer behind the features, and the unit length of what it gives.
fn add_layer(graph: &mut Graph, layer: &LinearLayer) {
    let shape = [layer.outputs(), layer.inputs()];
    let weight = graph.constant("linear_layer.weight", &shape, layer.weight());
    let bias = graph.constant("linear_layer.bias", &shape[..1], layer.bias());
    let features = graph.result.clone();
    let inputs = [&features[..], &weight, &bias];
    let out = graph.node("Gemm", &inputs, &[graph::int("transB", 1)]);
    let over = [graph::ints("axes", &[1]), graph::int("keepdims", 1)];
    let length = graph.node("ReduceL2", &[&out], &over);
    // What lies at the center has no direction: zeros, not NaN.
    let least = graph.constant("least_length", &[], &[f32::MIN_POSITIVE]);
    let length = graph.node("Max", &[&length, &least], &[]);
    graph.result = graph.node("Div", &[&out, &length], &[]);
}

fn triple([r, g, b]: [f32; 3]) -> String {
    format!("[{r}, {g}, {b}]")
}
