//! An ONNX graph as an image encoder, by rten.

use rten::{Dimension, Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value};
use rten_tensor::NdTensor;
use rten_tensor::{AsView as _, Layout as _};
use seedling_core::encoder::FeatureNet;
use seedling_core::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A graph that makes features of images. What it puts out is one of: (batch, dim); (batch, tokens,
/// dim), of which the first token is taken; (batch, dim, height, width), of which the mean is.
pub struct OnnxNet {
    model: Model,
    path: PathBuf,
    input: NodeId,
    output: NodeId,
    colors: Colors,
    /// Images at a time, where the graph fixes it.
    batch: Option<usize>,
    /// Height and width, likewise.
    size: Option<(usize, usize)>,
    dim: usize,
    pool: Arc<ThreadPool>,
}

/// Where the graph's images have their colors.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Colors {
    ChannelsFirst,
    ChannelsLast,
}

impl OnnxNet {
    /// Opens the graph at `path`; `output` names what are to be its features, empty the first. `side`
    /// is the size of the images it will be shown, on `threads` threads.
    ///
    /// # Errors
    /// It is no graph of images of that size, or has no such output.
    pub fn open(path: &Path, output: &str, side: usize, threads: usize) -> Result<OnnxNet> {
        let refuse = |reason: String| Error::file(path, reason);
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        // As it is: what rten makes of a graph to be faster loses outputs that are mere copies.
        let model = ModelOptions::with_all_ops()
            .enable_optimization(false)
            .load(bytes)
            .map_err(|e| refuse(format!("no ONNX graph: {e}")))?;
        let input = *model
            .input_ids()
            .first()
            .ok_or_else(|| refuse("has no input".into()))?;
        let shape = model.input_shape(0).unwrap_or_default();
        let fixed = |i: usize| match shape.get(i) {
            Some(Dimension::Fixed(n)) => Some(*n),
            _ => None,
        };
        let colors = match (fixed(1), fixed(3)) {
            (Some(3), _) => Colors::ChannelsFirst,
            (_, Some(3)) => Colors::ChannelsLast,
            _ if shape.len() == 4 || shape.is_empty() => Colors::ChannelsFirst,
            _ => {
                return Err(refuse(format!(
                    "its input {shape:?} is no batch of RGB images"
                )));
            }
        };
        let at = if colors == Colors::ChannelsFirst {
            2
        } else {
            1
        };
        let size = fixed(at).zip(fixed(at + 1));
        if let Some(size) = size.filter(|size| *size != (side, side)) {
            return Err(refuse(format!(
                "takes images of {} x {} pixels; name them with --set teacher_size={}",
                size.0, size.1, size.1
            )));
        }
        let output = match output {
            "" => model.output_ids().first().copied(),
            name => model.find_node(name),
        };
        let output = output.ok_or_else(|| refuse("has no such output".into()))?;
        let mut net = OnnxNet {
            path: path.to_path_buf(),
            input,
            output,
            colors,
            batch: fixed(0),
            size,
            dim: 0,
            pool: Arc::new(ThreadPool::with_num_threads(threads.max(1))),
            model,
        };
        // A first look says how long its features are, and that it can look at all.
        let gray = vec![vec![0.0; side * side * 3]];
        net.dim = net.run(&gray, (side, side))?.len();
        Ok(net)
    }

    /// Features of so many images as the graph takes at a time.
    fn run(&self, images: &[Vec<f32>], (height, width): (usize, usize)) -> Result<Vec<f32>> {
        let refuse = |reason: String| Error::file(&self.path, reason);
        let batch = self.batch.unwrap_or(images.len());
        let pixels = height * width;
        let mut numbers = vec![0.0; batch * pixels * 3];
        for (image, out) in images.iter().zip(numbers.chunks_exact_mut(pixels * 3)) {
            match self.colors {
                Colors::ChannelsLast => out.copy_from_slice(image),
                Colors::ChannelsFirst => {
                    for (c, plane) in out.chunks_exact_mut(pixels).enumerate() {
                        let from = image.iter().skip(c).step_by(3);
                        plane.iter_mut().zip(from).for_each(|(x, y)| *x = *y);
                    }
                }
            }
        }
        let shape = match self.colors {
            Colors::ChannelsFirst => [batch, 3, height, width],
            Colors::ChannelsLast => [batch, height, width, 3],
        };
        let input = Value::from(NdTensor::from_data(shape, numbers));
        let mut options = RunOptions::default();
        options.thread_pool = Some(self.pool.clone());
        let found = self
            .model
            .run(
                vec![(self.input, input.into())],
                &[self.output],
                Some(options),
            )
            .map_err(|e| {
                refuse(format!(
                    "could not look at images of {height} x {width}: {e}"
                ))
            })?;
        let tensor = found
            .into_iter()
            .next()
            .and_then(|value| value.into_tensor::<f32>())
            .ok_or_else(|| refuse("its features are no f32 numbers".into()))?;
        let (shape, values) = (tensor.shape().to_vec(), tensor.to_vec());
        let features = match shape[..] {
            [n, _] if n == batch => values,
            [n, tokens, dim] if n == batch => {
                let rows = values.chunks_exact((tokens * dim).max(1));
                rows.flat_map(|image| image[..dim].to_vec()).collect()
            }
            [n, dim, rows, columns] if n == batch => {
                let area = (rows * columns).max(1);
                let planes = values.chunks_exact(area).take(n * dim);
                planes
                    .map(|plane| plane.iter().sum::<f32>() / area as f32)
                    .collect()
            }
            _ => {
                return Err(refuse(format!(
                    "its output {shape:?} are no features of {batch} images; another one can be \
                     named with --set teacher_output=NAME"
                )));
            }
        };
        let dim = features.len() / batch.max(1);
        Ok(features[..images.len() * dim].to_vec())
    }
}

impl FeatureNet for OnnxNet {
    fn feature_dim(&self) -> usize {
        self.dim
    }

    fn features_of(&self, images: &[Vec<f32>], size: (usize, usize)) -> Result<Vec<f32>> {
        if let Some(own) = self.size.filter(|own| *own != size) {
            let reason = format!("takes images of {} x {} pixels", own.0, own.1);
            return Err(Error::file(&self.path, reason));
        }
        let at_once = self.batch.unwrap_or(images.len()).max(1);
        let mut features = Vec::with_capacity(images.len() * self.dim);
        for images in images.chunks(at_once) {
            features.extend(self.run(images, size)?);
        }
        Ok(features)
    }

    fn release(&self) {}
}
